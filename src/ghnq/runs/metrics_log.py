"""The metrics of a run: one JSON object on each line, and the same values for TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType

from ghnq.files import write_text
from ghnq.runs.tensorboard import EventFile, append

LOG = "log.jsonl"


class MetricsLog:
    """Appends metrics to `log.jsonl` and to `tensorboard/` in a directory, unbuffered: a killed run loses no line.

    Args:
        directory: Directory of the run.
        resume_at: Step from which the run continues; later lines are dropped.
    """

    def __init__(self, directory: Path, *, resume_at: int) -> None:
        self.path = directory / LOG
        self._drop_after(resume_at)
        self._events = EventFile(directory / "tensorboard", resume_at=resume_at)
        self._file = self.path.open("ab", buffering=0)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Writes metrics by name; a value that is not finite is null in the file."""
        self.write_facts(step, {name: value if math.isfinite(value) else None for name, value in metrics.items()})
        for name, value in metrics.items():
            self._events.add(name, value, step)

    def write_facts(self, step: int, facts: dict[str, object]) -> None:
        """Writes a line of any JSON values, to `log.jsonl` only."""
        append(self._file, (json.dumps({"step": step, **facts}, allow_nan=False) + "\n").encode())

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._events.close()

    def _drop_after(self, step: int) -> None:
        """Drops lines after the step of the state that the run resumes from, and a line that was cut off."""
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """Returns the step of a log line, infinity for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
