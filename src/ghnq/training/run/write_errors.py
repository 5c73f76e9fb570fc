"""What a run does when its directory cannot be written: a disk that is full, a quota, permissions that changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ghnq.errors import TrainingError, WriteError


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turns a failure to write into a TrainingError; what was there before is still there."""
    try:
        yield
    except (OSError, WriteError) as error:
        reason = error.__cause__ if isinstance(error, WriteError) else error
        raise TrainingError(
            f"'{directory}' cannot be written ({reason}); the run ends with its last saved state as it was. "
            "Make room there, then go on with --resume"
        ) from error
