"""Progress of a training run on the terminal: a bar with loss, speed and time left, and a line for each validation."""

from __future__ import annotations

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from ghnq.runs.moving_average import exponential_average
from ghnq.training.recipe import Recipe
from ghnq.training.run.state import Progress
from ghnq.training.run.trainer import StepReport


class TrainingBar:
    """A progress bar over steps, or over minutes if these end the run first."""

    def __init__(self, console: Console, recipe: Recipe) -> None:
        self.console, self.recipe = console, recipe
        self._loss = self._accuracy = self._speed = float("nan")
        self._bar = RichProgress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("step {task.fields[step]}  loss {task.fields[loss]:.3f}  train {task.fields[accuracy]:.1f} %"),
            TextColumn("{task.fields[speed]:.1f} networks/s"),
            TimeRemainingColumn(),
            console=console,
        )
        nan = float("nan")
        self._task = self._bar.add_task(recipe.name, total=1.0, step=0, loss=nan, accuracy=nan, speed=nan)

    def update(self, progress: Progress, report: StepReport) -> None:
        """Updates the bar after a step."""
        self._loss = exponential_average(self._loss, report.loss)
        self._accuracy = exponential_average(self._accuracy, report.accuracy)
        self._speed = exponential_average(self._speed, report.speed)
        done = progress.step / self.recipe.steps
        if self.recipe.max_minutes is not None:
            done = max(done, progress.seconds / (60 * self.recipe.max_minutes))
        self._bar.update(
            self._task, completed=min(done, 1.0), step=progress.step,
            loss=self._loss, accuracy=self._accuracy, speed=self._speed,
        )  # fmt: skip

    def validated(self, progress: Progress, metrics: dict[str, float]) -> None:
        """Prints the result of a validation."""
        error = metrics["val/sem"]  # NaN for one architecture
        spread = f" ± {error:.2f}" if math.isfinite(error) else ""
        self.console.print(
            f"step {progress.step:>6}  {progress.seconds / 60:5.1f} min  {self._speed:5.1f} networks/s  "
            f"val [bold]{metrics['val/accuracy']:.2f}[/]{spread} %  max {metrics['val/max']:.1f} %"
        )

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
