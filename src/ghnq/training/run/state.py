"""The training state: one safetensors file with everything that a resumed run needs, and a checksum of it.

Architectures, images and augmentation are pure functions of the step, the learning rate one of the step and of the time
trained, and no random generator keeps state between steps: the number of the step determines all of them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ghnq.errors import CheckpointError
from ghnq.hypernet.config import Task
from ghnq.hypernet.model import GHN
from ghnq.runs.state_files import load_last
from ghnq.runs.tensor_file import read_tensors, write_tensors

FORMAT = "ghnq-training-2"


@dataclass(slots=True)
class Progress:
    """Counters of a run.

    Attributes:
        step: Updates made or skipped.
        seconds: Time spent in steps, over all resumes.
        skipped: Steps with a non-finite loss or gradient.
        skipped_in_a_row: The last of them without a finite one in between.
        best: Best validation accuracy so far, percent; NaN before the first.
        measured: Step of the last validation.
    """

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float = float("nan")
    measured: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """A state that was read and whose checksum is right.

    Attributes:
        path: The file.
        recipe: The recipe of the run, as JSON.
        task: The images of the run.
        progress: Counters.
        tensors: Weights, average and optimizer, by prefixed name.
    """

    path: Path
    recipe: str
    task: Task
    progress: Progress
    tensors: dict[str, Tensor]

    def restore(self, ghn: GHN, average: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Loads the tensors into hypernetwork, weight average and optimizer.

        An average that the state does not have, because the recipe had none before, starts at the weights.

        Raises:
            CheckpointError: The tensors do not fit.
        """
        weights, kept = self._part("weights"), self._part("average")
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in self._part("optimizer").items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = tensor
        try:
            ghn.load_state_dict(weights)
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
            for key, tensor in average.items():
                tensor.copy_((kept or weights)[key])
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self.path} does not fit this recipe's hypernetwork: {error}") from error

    def _part(self, part: str) -> dict[str, Tensor]:
        start = f"{part}."
        return {key.removeprefix(start): tensor for key, tensor in self.tensors.items() if key.startswith(start)}


def write_state(
    path: Path,
    ghn: GHN,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    recipe: str,
    task: Task,
) -> None:
    """Writes a state to the path that `state_files.writing_state` yields."""
    tensors = {f"weights.{k}": v for k, v in ghn.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    metadata = {"format": FORMAT, "progress": json.dumps(asdict(progress)), "recipe": recipe}
    write_tensors(path, tensors, metadata | {"task": task.model_dump_json()})


def read_state(path: Path) -> State:
    """Reads a state and checks its checksum.

    Raises:
        CheckpointError: It is missing, truncated, changed in any byte, or of another format.
    """
    tensors, metadata = read_tensors(path, FORMAT, ("progress", "recipe", "task"))
    task, progress = Task.model_validate_json(metadata["task"]), Progress(**json.loads(metadata["progress"]))
    return State(path, metadata["recipe"], task, progress, tensors)


def load_last_state(directory: Path) -> State:
    """Returns the newest intact state of a run, and warns if it is not the one that was written last.

    Raises:
        CheckpointError: There is none.
    """
    return load_last(directory, read_state, lambda state: state.progress.step)
