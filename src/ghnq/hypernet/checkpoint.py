"""Checkpoints: directories with `model.safetensors` and `config.json`, without pickle.

`config.json` is {"format": 1, "ghnq": version, "ghn": GHNConfig, "task": Task or null}. This module stores
configurations and tensors and does not depend on the hypernetwork, which `GHN.from_pretrained` builds from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ghnq._version import __version__
from ghnq.errors import CheckpointError, nearest
from ghnq.files import atomic_path, write_text
from ghnq.hypernet.config import GHNConfig, Task
from ghnq.hypernet.memory_need import memory_shortage
from ghnq.validation_errors import explain

Model = TypeVar("Model", bound=BaseModel)
FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class StoredCheckpoint:
    """What a checkpoint directory contains.

    Attributes:
        path: The file of the weights, for messages.
        weights: The state dictionary as stored; whether it fits the configuration is checked by `checked_weights`.
    """

    path: Path
    config: GHNConfig
    task: Task | None
    weights: dict[str, Tensor]

    def checked_weights(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weights if they fit.

        Args:
            expected: The state dictionary of a hypernetwork of this configuration.

        Raises:
            CheckpointError: A tensor is missing, unknown, not finite, or has another shape or type.
        """
        if self.weights.keys() != expected.keys():
            raise CheckpointError(
                f"{self.path} does not fit its {CONFIG}: missing {sorted(expected.keys() - self.weights.keys())}, "
                f"unknown {sorted(self.weights.keys() - expected.keys())}"
            )
        for key, tensor in self.weights.items():
            if tensor.shape != expected[key].shape:
                raise CheckpointError(
                    f"{self.path}: '{key}' has shape {tuple(tensor.shape)}, {CONFIG} says {tuple(expected[key].shape)}"
                )
            finite = bool(tensor.isfinite().all())
            if tensor.dtype != expected[key].dtype or not finite:
                raise CheckpointError(
                    f"{self.path}: '{key}' must be finite {expected[key].dtype}, and is {tensor.dtype}"
                    f"{'' if finite else ' with NaN or infinite values'}; train or fetch the checkpoint again"
                )
        return self.weights


def shipped_checkpoints() -> dict[str, Path]:
    """Returns the directories of the checkpoints that are included in the package, by name."""
    root = Path(str(resources.files("ghnq"))) / "checkpoints"
    return {d.name: d for d in sorted(root.iterdir()) if (d / WEIGHTS).is_file()} if root.is_dir() else {}


def resolve(name: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None) -> Path:
    """Returns the directory of a checkpoint.

    Args:
        name: A shipped name, a directory, or a hub id, which is downloaded once.
        revision: The revision of a hub id.
        token: The access token for a hub id.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    shipped = shipped_checkpoints()
    text = os.fspath(name)
    path = Path(text)
    if text in shipped:
        return shipped[text]
    if text and path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(
            f"'{text}' is a file; a checkpoint is a directory with {WEIGHTS} and {CONFIG}. "
            "Pickled files are not read: loading one can run any code it contains. `ghnq import` converts a published "
            "GHN-1, GHN-2 or GHN-3."
        )
    if HUB_ID.fullmatch(text):
        return _download(text, revision, token)
    raise CheckpointError(
        f"there is no checkpoint '{text}'{nearest(text, shipped)}; "
        f"shipped: {', '.join(shipped) or 'none'}. Name one of these, a directory, or a hub id like 'user/name'."
    )


def write_checkpoint(directory: Path, config: GHNConfig, task: Task | None, weights: Mapping[str, Tensor]) -> None:
    """Writes configuration and weights into a directory, each file atomically."""
    document = {
        "format": FORMAT,
        "ghnq": __version__,
        "ghn": config.model_dump(mode="json"),
        # Without what is not known: then the file is that of earlier versions.
        "task": task.model_dump(mode="json", exclude_none=True) if task else None,
    }
    write_text(directory / CONFIG, json.dumps(document, indent=2) + "\n")
    with atomic_path(directory / WEIGHTS) as temporary:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}, temporary)


def read_checkpoint(
    name: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None
) -> StoredCheckpoint:
    """Reads a checkpoint; the arguments are those of `resolve`.

    Raises:
        CheckpointError: It does not exist, cannot be read, or needs more memory than there is.
    """
    directory = resolve(name, revision=revision, token=token)
    config, task = _read_config(directory)
    if shortage := memory_shortage(config):
        raise CheckpointError(f"'{directory}': {shortage}; take another checkpoint, or a machine with more memory")
    return StoredCheckpoint(directory / WEIGHTS, config, task, _read_weights(directory))


def checkpoint_hash(name: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of the weights, in hexadecimal."""
    path = resolve(name) / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"'{path}' does not exist; a checkpoint contains {WEIGHTS} and {CONFIG}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_config(directory: Path) -> tuple[GHNConfig, Task | None]:
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"'{directory}' has no {CONFIG}; a checkpoint contains {WEIGHTS} and {CONFIG}")
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:  # RecursionError: nested too deeply
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise CheckpointError(f"{path}: format {found!r} is not known; this version of ghnq reads format {FORMAT}")
    task = None if raw.get("task") is None else _validated(Task, raw["task"], f"{path}: task")
    return _validated(GHNConfig, raw.get("ghn"), f"{path}: ghn"), task


def _validated(model: type[Model], value: object, source: str) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise CheckpointError(f"{source} does not describe a hypernetwork: {explain(error, model)}") from error


def _read_weights(directory: Path) -> dict[str, Tensor]:
    path = directory / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"'{directory}' has no {WEIGHTS}; a checkpoint contains {WEIGHTS} and {CONFIG}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({error}); fetch or train it again"
        ) from error


def _download(repository: str, revision: str | None, token: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, token=token, allow_patterns=[WEIGHTS, CONFIG]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"'{repository}' is neither a shipped checkpoint ({', '.join(shipped_checkpoints()) or 'none'}) nor a "
            f"directory, and could not be fetched from the hub: {error}"
        ) from error
