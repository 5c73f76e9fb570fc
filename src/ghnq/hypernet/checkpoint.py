"""Checkpoints: a directory with `model.safetensors` and `config.json`; never a pickle.

`config.json`: {"format": 1, "ghnq": version, "ghn": GHNConfig, "task": Task or null}.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ghnq._version import __version__
from ghnq.errors import CheckpointError, nearest
from ghnq.files import atomic_path, write_text
from ghnq.hypernet.config import GHNConfig, Task
from ghnq.hypernet.model import GHN
from ghnq.validation_errors import explain

M = TypeVar("M", bound=BaseModel)
FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def shipped_checkpoints() -> dict[str, Path]:
    """Name -> directory of the checkpoints that come with the package."""
    root = Path(str(resources.files("ghnq"))) / "checkpoints"
    return {d.name: d for d in sorted(root.iterdir()) if (d / WEIGHTS).is_file()} if root.is_dir() else {}


def resolve(name: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None) -> Path:
    """The directory of a shipped name, of a path, or of a hub id (downloaded once); raises CheckpointError."""
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


def save(ghn: GHN, directory: Path) -> None:
    """Writes config and weights, each whole or not at all."""
    config = {
        "format": FORMAT,
        "ghnq": __version__,
        "ghn": ghn.config.model_dump(mode="json"),
        "task": ghn.task.model_dump(mode="json") if ghn.task else None,
    }
    write_text(directory / CONFIG, json.dumps(config, indent=2) + "\n")
    with atomic_path(directory / WEIGHTS) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in ghn.state_dict().items()}, temporary)


def load(name: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None) -> GHN:
    """Reads a checkpoint into a hypernetwork in evaluation mode; raises CheckpointError.

    revision, token: for a hub id.
    """
    directory = resolve(name, revision=revision, token=token)
    config, task = _read_config(directory)
    ghn = GHN(config, task=task)
    weights = _read_weights(directory)
    expected = ghn.state_dict()
    if weights.keys() != expected.keys():
        raise CheckpointError(
            f"{directory / WEIGHTS} does not fit its {CONFIG}: missing {sorted(expected.keys() - weights.keys())}, "
            f"unknown {sorted(weights.keys() - expected.keys())}"
        )
    for key, tensor in weights.items():
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{directory / WEIGHTS}: '{key}' has shape {tuple(tensor.shape)}, "
                f"{CONFIG} says {tuple(expected[key].shape)}"
            )
        if tensor.dtype != expected[key].dtype or not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{directory / WEIGHTS}: '{key}' must be finite {expected[key].dtype}, and is {tensor.dtype}"
                f"{'' if bool(tensor.isfinite().all()) else ' with NaN or infinite values'}; "
                "train or fetch the checkpoint again"
            )
    ghn.load_state_dict(weights)
    return ghn.eval()


def checkpoint_hash(name: str | os.PathLike[str]) -> str:
    """SHA-256 of the weights, hexadecimal."""
    path = resolve(name) / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"'{path}' does not exist; a checkpoint holds {WEIGHTS} and {CONFIG}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_config(directory: Path) -> tuple[GHNConfig, Task | None]:
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"'{directory}' has no {CONFIG}; a checkpoint holds {WEIGHTS} and {CONFIG}")
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise CheckpointError(f"{path}: format {found!r} is not known; this version of ghnq reads format {FORMAT}")
    task = None if raw.get("task") is None else _validated(Task, raw["task"], f"{path}: task")
    return _validated(GHNConfig, raw.get("ghn"), f"{path}: ghn"), task


def _validated(model: type[M], value: object, source: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise CheckpointError(f"{source} does not describe a hypernetwork: {explain(error, model)}") from error


def _read_weights(directory: Path) -> dict[str, Any]:
    path = directory / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"'{directory}' has no {WEIGHTS}; a checkpoint holds {WEIGHTS} and {CONFIG}")
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
