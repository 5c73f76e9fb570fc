"""Progress of a fine-tuning run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ghnq.finetune.learner import StepReport
from ghnq.runs.moving_average import exponential_average

SECONDS_BETWEEN_LINES = 20.0


class FinetuneBar:
    """A progress bar over the steps of a run, as a context manager."""

    def __init__(self, console: Console, name: str) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("step {task.fields[step]}  loss {task.fields[loss]:.3f}  train {task.fields[accuracy]:.1f} %"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(escape(name), total=1.0, step=0, loss=float("nan"), accuracy=float("nan"))
        self._loss = self._accuracy = float("nan")
        self._printed = time.monotonic()

    def update(self, step: int, total: int, progress: float, report: StepReport) -> None:
        """Updates the bar after a step, or prints a line if the last one is long ago."""
        self._loss = exponential_average(self._loss, report.loss)
        self._accuracy = exponential_average(self._accuracy, report.accuracy)
        self._bar.update(self._task, completed=progress, step=step, loss=self._loss, accuracy=self._accuracy)
        if not self.console.is_terminal and time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self.say(f"step {step} of {total}  loss {self._loss:.3f}  train {self._accuracy:.1f} %")

    def say(self, line: str) -> None:
        """Prints a line."""
        self._printed = time.monotonic()
        self.console.print(line, soft_wrap=True, highlight=False)

    def __enter__(self) -> FinetuneBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
