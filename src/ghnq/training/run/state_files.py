"""The two last states of a run: at every instant at least one of them is whole, and a damaged one does not end a run.

A new state is written beside them and flushed to the disk; then the last becomes the one before, then the new one
becomes the last. A crash between the two renames leaves the one before, which is the newest whole state of that moment.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ghnq.errors import CheckpointError, GhnqWarning
from ghnq.files import atomic_path
from ghnq.training.run.state import State, read_state

STATE, PREVIOUS = "state.safetensors", "state.previous.safetensors"


def holds_run(directory: Path) -> bool:
    """Whether there is a state in a directory, whole or not."""
    return (directory / STATE).exists() or (directory / PREVIOUS).exists()


@contextmanager
def next_state(directory: Path) -> Iterator[Path]:
    """Yields a path to write a state to, which then is the directory's last; the last becomes the one before.

    On any exception both are as they were. Raises WriteError where the directory cannot be written.
    """
    with atomic_path(directory / STATE, previous=directory / PREVIOUS) as temporary:
        yield temporary


def last_state(directory: Path) -> State:
    """The last state that is whole; warns where that is not the last one written. Raises CheckpointError for none."""
    last, before = directory / STATE, directory / PREVIOUS
    if not last.exists() and before.exists():  # killed between the two renames
        return read_state(before)
    try:
        return read_state(last)
    except CheckpointError as damage:
        if not before.exists():
            raise
        try:
            state = read_state(before)
        except CheckpointError as other:
            raise CheckpointError(
                f"no state to resume from: {damage}; {other}; start again in another --out"
            ) from other
        warnings.warn(
            f"{damage}; going on from step {state.progress.step}, the state before it ({before.name})",
            GhnqWarning,
            stacklevel=3,
        )
        return state


def settle(directory: Path, state: State) -> None:
    """Makes the state that a run goes on from the last one, so that no damaged one ever pushes it out."""
    if state.path.name == PREVIOUS:
        os.replace(state.path, directory / STATE)
