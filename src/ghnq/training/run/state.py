"""The training state: one safetensors file with everything a resumed run needs, and a checksum of it.

Architectures, images and augmentation are pure functions of the step, the learning rate one of the step and of the time
trained, and no random generator runs on from step to step: with the step, all of these are in the state.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ghnq.errors import CheckpointError
from ghnq.hypernet.config import Task
from ghnq.hypernet.model import GHN

FORMAT = "ghnq-training-2"


@dataclass(slots=True)
class Progress:
    """Counters of a run.

    step: updates done or skipped; seconds: time spent training, over all resumes; skipped: steps that were not finite.
    best: best validation accuracy so far, percent; NaN before the first. measured: the step of the last validation.
    """

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float = float("nan")
    measured: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """A state that was read and found to be what was written.

    recipe: JSON of the recipe it was made with. task: the images it was made with.
    """

    path: Path
    recipe: str
    task: Task
    progress: Progress
    tensors: dict[str, Tensor]

    def restore(self, ghn: GHN, average: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Puts the tensors into hypernetwork, weight average and optimizer; raises CheckpointError if they do not fit.

        An average that the state lacks, because the recipe had none so far, starts at the weights.
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
    """Writes the state to `path` itself; `keep.next_state` gives the path."""
    tensors = {f"weights.{k}": v for k, v in ghn.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    metadata = {"format": FORMAT, "progress": json.dumps(asdict(progress)), "recipe": recipe}
    metadata["task"] = task.model_dump_json()
    save_file(tensors, path, metadata | {"checksum": _checksum(metadata, tensors)})


def read_state(path: Path) -> State:
    """Reads a state; raises CheckpointError where it is missing, truncated, changed in any byte, or of another format.

    safetensors itself checks sizes and nothing else.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no training state at {path}; start the run without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: torch, for a damaged shape or type
        raise CheckpointError(f"{path} is truncated or not a training state ({error})") from error
    if not metadata.keys() >= {"format", "checksum", "progress", "recipe", "task"} or metadata["format"] != FORMAT:
        raise CheckpointError(
            f"{path} is not a training state of this version of ghnq (format {metadata.get('format')!r}, read here: "
            f"{FORMAT!r})"
        )
    if metadata.pop("checksum") != _checksum(metadata, tensors):
        raise CheckpointError(f"{path} is damaged: its bytes are not those that were written (checksum)")
    task, progress = Task.model_validate_json(metadata["task"]), Progress(**json.loads(metadata["progress"]))
    return State(path, metadata["recipe"], task, progress, tensors)


def _checksum(metadata: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """SHA-256 over metadata, and name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
