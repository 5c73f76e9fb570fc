"""The training state: one safetensors file with everything a resumed run needs, replaced as a whole.

Architectures, images and augmentation are pure functions of the step, so the step is their whole state.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ghnq.errors import CheckpointError
from ghnq.files import atomic_path
from ghnq.hypernet.model import GHN

STATE = "state.safetensors"
FORMAT = "ghnq-training-1"


@dataclass(slots=True)
class Progress:
    """Counters of a run.

    step: updates done or skipped; seconds: time spent training, over all resumes; skipped: steps that were not finite.
    best: best validation accuracy so far, percent; NaN before the first.
    """

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float = float("nan")


def save_state(
    path: Path, ghn: GHN, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, progress: Progress, recipe: str
) -> None:
    """Writes the state, whole or not at all."""
    tensors = {f"weights.{k}": v for k, v in ghn.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    metadata = {"format": FORMAT, "progress": json.dumps(asdict(progress)), "recipe": recipe}
    with atomic_path(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)


def read_recipe(path: Path) -> str:
    """The recipe a state was made with, as JSON; raises CheckpointError."""
    return _open(path)[0]["recipe"]


def load_state(path: Path, ghn: GHN, average: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Progress:
    """Puts a saved state into hypernetwork, weight average and optimizer; raises CheckpointError."""
    metadata, tensors = _open(path)
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = tensor
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in parts["optimizer"].items():
        number, _, name = key.partition(".")
        moments.setdefault(int(number), {})[name] = tensor
    try:
        ghn.load_state_dict(parts["weights"])
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        for key, tensor in average.items():
            tensor.copy_(parts["average"][key])
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit this recipe's hypernetwork: {error}") from error
    return Progress(**json.loads(metadata["progress"]))


def _open(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"there is no training state at {path}; start the run without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not a training state ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a training state of this version (format {metadata.get('format')!r})")
    return metadata, tensors
