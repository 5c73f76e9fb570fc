"""Errors of a run whose directory cannot be written: a full disk, a quota, changed permissions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ghnq.errors import TrainingError, WriteError


@contextmanager
def report_write_errors(directory: Path) -> Iterator[None]:
    """Turns a failure to write into a TrainingError; existing files are unchanged.

    Raises:
        TrainingError: The directory cannot be written.
    """
    try:
        yield
    except (OSError, WriteError) as error:
        reason = error.__cause__ if isinstance(error, WriteError) else error
        raise TrainingError(
            f"'{directory}' cannot be written ({reason}); the run ends with its last saved state as it was. "
            "Free space there, then continue with --resume"
        ) from error
