"""The callback through which long computations report progress."""

from __future__ import annotations

from typing import Protocol


class ProgressCallback(Protocol):
    """A function that is called after each unit of work; a progress bar, for example."""

    def __call__(self, done: int, total: int, /) -> None:
        """Reports that `done` of `total` units are finished."""
