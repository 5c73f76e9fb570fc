"""Tensors and text in one safetensors file with a checksum: a change of any byte is noticed when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ghnq.errors import CheckpointError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors from any device, and metadata, to a path that `state_files.writing_state` yields."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(stored, path, {**metadata, "checksum": _checksum(dict(metadata), stored)})


def read_tensors(path: Path, layout: str, keys: Collection[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns tensors and metadata after a check of the checksum; safetensors itself checks only sizes.

    Args:
        layout: What the key `format` of the metadata must be.
        keys: Keys that the metadata must have.

    Raises:
        CheckpointError: The file is missing, truncated, changed in any byte, or of another layout.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no training state at {path}; start the run without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: torch, for a damaged shape or type
        raise CheckpointError(f"{path} is truncated or not a training state ({error})") from error
    if not metadata.keys() >= {"format", "checksum", *keys} or metadata["format"] != layout:
        raise CheckpointError(
            f"{path} is not a training state of this version of ghnq (format {metadata.get('format')!r}, read here: "
            f"{layout!r})"
        )
    if metadata.pop("checksum") != _checksum(metadata, tensors):
        raise CheckpointError(f"{path} is damaged: its bytes are not those that were written (checksum)")
    return tensors, metadata


def _checksum(metadata: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """Returns the SHA-256 over the metadata and over name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
