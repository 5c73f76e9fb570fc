"""Errors for invalid input. Each message says what was given, what is allowed, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GhnqError(Exception):
    """Base class of all errors about invalid input; the command line prints the message and exits with code 2."""


class GhnqWarning(UserWarning):
    """A warning about a result of limited use; the command line prints it and continues."""


class GraphError(GhnqError):
    """A module cannot be traced, or a graph is not a valid architecture."""


class OutputError(GraphError):
    """A network returns several tensors, or none, and it is not clear which of them is its logits."""


class SpaceError(GhnqError):
    """A space, split or index does not exist, or a spec does not belong to the space."""


class SchemeError(GhnqError):
    """A quantization scheme or protocol does not exist or cannot be applied."""


class NotFiniteError(SchemeError):
    """Weights, statistics or activations are NaN or infinite, so the network cannot be quantized."""


class DataError(GhnqError):
    """Images are missing, empty, or have a wrong size, channel count or class count."""


class CheckpointError(GhnqError):
    """A checkpoint is missing, truncated, has another layout, or has a format that is refused (pickle)."""


class RecipeError(GhnqError):
    """A recipe has an unknown key or a value out of range."""


class TrainingError(GhnqError):
    """A training run cannot start or continue."""


class WriteError(GhnqError):
    """A file cannot be written: full disk, quota, missing permission."""


class ExportError(GhnqError):
    """A network cannot be exported, or a file was not written by `ghnq export`."""


class MissingExtraError(GhnqError):
    """An optional dependency is not installed; the message names the extra that installs it."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the closest allowed name, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def check_type(value: object, kind: type, call: str, hint: str) -> None:
    """Checks an argument of a public function.

    Args:
        call: The function, as in `score()`.
        hint: How one gets a value of this type.

    Raises:
        GhnqError: It is of another type.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise GhnqError(f"{call} takes {article} {kind.__name__}, got {type(value).__name__}: {hint}")
