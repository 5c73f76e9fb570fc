"""The state of a fine-tuning run: one file with everything that a resumed run needs.

Images, augmentation and learning rate are functions of the step, so that the number of the step determines them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from ghnq.finetune.schedule import Plan
from ghnq.runs.state_files import load_last, writing_state
from ghnq.runs.tensor_file import read_tensors, write_tensors

FORMAT = "ghnq-finetune-1"


@dataclass(slots=True)
class Progress:
    """Counters of a run.

    Attributes:
        step: Updates made.
        seconds: Time of training, over all resumes.
        lr: Peak of the learning rate; 0 before it is known.
        rollbacks: How often the loss was not finite; each time the rate was halved.
        plan: How many steps there will be.
        before: Accuracy on test images before training, by scheme, percent.
    """

    step: int = 0
    seconds: float = 0.0
    lr: float = 0.0
    rollbacks: int = 0
    plan: Plan = field(default_factory=lambda: Plan(0))
    before: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """Peak of the learning rate after all rollbacks."""
        return self.lr * 0.5**self.rollbacks


@dataclass(frozen=True, slots=True)
class State:
    """A state that was read and whose checksum is right.

    Attributes:
        path: The file.
        job: The job of the run, as JSON.
        progress: Counters.
        tensors: The snapshot of the learner.
    """

    path: Path
    job: str
    progress: Progress
    tensors: dict[str, Tensor]


def save_state(directory: Path, job: str, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Writes a state; the last one becomes the previous one."""
    metadata = {"format": FORMAT, "job": job, "progress": json.dumps(asdict(progress))}
    with writing_state(directory) as path:
        write_tensors(path, tensors, metadata)


def load_state(directory: Path) -> State:
    """Returns the newest intact state of a run, and warns if it is not the one that was written last.

    Raises:
        CheckpointError: There is none.
    """
    return load_last(directory, _read_state, lambda state: state.progress.step)


def _read_state(path: Path) -> State:
    tensors, metadata = read_tensors(path, FORMAT, ("job", "progress"))
    fields = json.loads(metadata["progress"])
    return State(path, metadata["job"], Progress(**{**fields, "plan": Plan(**fields["plan"])}), tensors)
