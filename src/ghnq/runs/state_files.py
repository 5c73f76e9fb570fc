"""The two last states of a run: at least one of them is intact at any time, and a damaged one does not end a run.

A new state is written to a temporary file and synced; then the last state is renamed to be the previous one, and the
new one to be the last. A crash between the two renames leaves the previous one, which is then the newest intact state.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ghnq.errors import CheckpointError, GhnqWarning
from ghnq.files import atomic_path

S = TypeVar("S")

STATE, PREVIOUS = "state.safetensors", "state.previous.safetensors"


def has_state(directory: Path) -> bool:
    """Returns whether there is a state in a directory, intact or not."""
    return (directory / STATE).exists() or (directory / PREVIOUS).exists()


@contextmanager
def writing_state(directory: Path) -> Iterator[Path]:
    """Yields a path to write a state to, which then becomes the last state; the last one becomes the previous one.

    On any exception both are as they were.

    Raises:
        WriteError: The directory cannot be written.
    """
    with atomic_path(directory / STATE, previous=directory / PREVIOUS) as temporary:
        yield temporary


def load_last(directory: Path, read: Callable[[Path], S], step_of: Callable[[S], int]) -> S:
    """Returns the newest intact state, and warns if it is not the one that was written last.

    Args:
        read: Reads a state; raises CheckpointError if it is damaged.
        step_of: Returns the step of a state, for the warning.

    Raises:
        CheckpointError: There is no intact state.
    """
    last, before = directory / STATE, directory / PREVIOUS
    if not last.exists() and before.exists():  # killed between the two renames
        return read(before)
    try:
        return read(last)
    except CheckpointError as damage:
        if not before.exists():
            raise
        try:
            state = read(before)
        except CheckpointError as other:
            raise CheckpointError(
                f"no state to resume from: {damage}; {other}; start again in another --out"
            ) from other
        warnings.warn(
            f"{damage}; resuming from step {step_of(state)}, the state before it ({before.name})",
            GhnqWarning,
            stacklevel=4,
        )
        return state


def promote_state(directory: Path, path: Path) -> None:
    """Renames the state that a run resumes from to be the last one, so that a damaged one never replaces it."""
    if path.name == PREVIOUS:
        os.replace(path, directory / STATE)
