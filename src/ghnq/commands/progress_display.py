"""The progress of a measurement, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ghnq.progress import ProgressCallback

SECONDS_BETWEEN_LINES = 20.0
"""Least time between two lines where stderr is not a terminal."""


@contextmanager
def measuring(console: Console, what: str = "architectures") -> Iterator[ProgressCallback]:
    """Shows progress that counts `what`, and yields the callback that moves it; a bar is removed at the end."""
    columns = (
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{what},"),
        TimeElapsedColumn(),
        TextColumn("passed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    if not console.is_terminal:
        yield _Lines(console, what)
        return
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield report


class _Lines:
    """Prints a line from time to time."""

    def __init__(self, console: Console, what: str) -> None:
        self.console, self.what = console, what
        self.start = self.printed = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.first = done if self.first is None else self.first  # finished by an earlier call that was interrupted
        if now - self.printed < SECONDS_BETWEEN_LINES or done == total:
            return
        self.printed = now
        passed, measured = now - self.start, done - self.first
        left = f", about {passed / measured * (total - done) / 60:.1f} min left" if measured else ""
        line = f"measured {done:,} of {total:,} {self.what} in {passed / 60:.1f} min{left}"
        self.console.print(line, soft_wrap=True, highlight=False)
