"""Every mistake a user can make ends in one of these errors, and each says what came, what is allowed, what to do."""

import difflib
from collections.abc import Iterable


class GhnqError(Exception):
    """A mistake in the input, told so that the reader can mend it; the command line prints it and exits with 2."""


class GhnqWarning(UserWarning):
    """Something that works, but not as well as it may look; the command line prints it and goes on."""


class GraphError(GhnqError):
    """A module that cannot be traced, or a graph that is not a valid architecture."""


class SpaceError(GhnqError):
    """An unknown space, split or index, or a spec that is not of the space."""


class SchemeError(GhnqError):
    """A quantization scheme or protocol that does not exist or cannot be carried out."""


class NotFiniteError(SchemeError):
    """A network whose weights, statistics or activations are NaN or infinite, so that nothing can be quantized."""


class DataError(GhnqError):
    """Images that are missing, empty, or of another size, channel count or class count than needed."""


class CheckpointError(GhnqError):
    """A checkpoint that is missing, truncated, of another layout, or of a format that is refused (pickle)."""


class RecipeError(GhnqError):
    """A recipe with an unknown key or a value out of range."""


class TrainingError(GhnqError):
    """A training run that cannot start or cannot go on."""


class WriteError(GhnqError):
    """A file that the system does not let us write: a full disk, a quota, permissions."""


class ExportError(GhnqError):
    """A network that cannot be written for a device, or a file that is not one of those we wrote."""


class MissingExtraError(GhnqError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the closest allowed word, or an empty string where none is close."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
