"""The training state: one safetensors file with everything that a resumed run needs, and a checksum of it.

Architectures, images and augmentation are pure functions of the step, the learning rate one of the step and of the time
trained, and no random generator keeps state between steps: the number of the step determines all of them.
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
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    metadata = {"format": FORMAT, "progress": json.dumps(asdict(progress)), "recipe": recipe}
    metadata["task"] = task.model_dump_json()
    save_file(tensors, path, metadata | {"checksum": _checksum(metadata, tensors)})


def read_state(path: Path) -> State:
    """Reads a state and checks its checksum; safetensors itself checks only sizes.

    Raises:
        CheckpointError: It is missing, truncated, changed in any byte, or of another format.
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
    """Returns the SHA-256 over the metadata and over name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
