"""Reading files of published hypernetworks, without running code that they may contain."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghnq.errors import CheckpointError
from ghnq.hypernet.model import GHN
from ghnq.hypernet.published_weights import from_published

EXPECTED = (
    "expected what `torch.save` made of {'config': ..., 'state_dict': ...}, as published for GHN-1, GHN-2 and GHN-3, "
    "or of a bare state dictionary of theirs"
)
DAMAGED = "is truncated, damaged, or not a file of torch"


def read_published(path: Path) -> GHN:
    """Returns the hypernetwork of a published `.pt` file, in evaluation mode; its `task` is None.

    Raises:
        CheckpointError: The file is missing, truncated, not one of torch, has another layout, would run code when it is
            loaded, or its tensors do not fit together.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"'{path}' {problem}; name a published checkpoint file, such as ghn2_cifar10.pt")
    config, state = _split(_load(path), path)
    try:
        return from_published(config, state)
    except CheckpointError as error:
        raise CheckpointError(f"'{path}': {error}") from error


def _load(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # of a pickle protocol that may fail; if it does, an exception follows
            content: object = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except pickle.UnpicklingError as error:
        if "unsupported global" not in str(error).lower():
            raise CheckpointError(f"'{path}' {DAMAGED}; {EXPECTED}") from error
        raise CheckpointError(
            f"'{path}' holds more than tensors and plain values, and only those are read (torch.load with "
            "weights_only=True), since loading others can run any code. If you trust the file, load it yourself and "
            "write {'config': config, 'state_dict': state_dict} with torch.save"
        ) from error
    except Exception as error:  # a damaged file raises anything: of the zip reader, of pickle, of torch
        raise CheckpointError(f"'{path}' {DAMAGED} ({str(error).partition(chr(10))[0]}); {EXPECTED}") from error


def _split(content: object, path: Path) -> tuple[Mapping[str, Any] | None, Mapping[str, Tensor]]:
    """Returns the configuration, if there is one, and the weights."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"'{path}' holds a {type(content).__name__}; {EXPECTED}")
    config, state = content.get("config"), content.get("state_dict", content)
    if not _named_tensors(state) or not (config is None or isinstance(config, Mapping)):
        found = ", ".join(f"'{key}' ({type(value).__name__})" for key, value in list(content.items())[:5])
        raise CheckpointError(f"'{path}' holds a dictionary of {found or 'nothing'}; {EXPECTED}")
    return config, state


def _named_tensors(state: object) -> bool:
    return (
        isinstance(state, Mapping)
        and len(state) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    )
