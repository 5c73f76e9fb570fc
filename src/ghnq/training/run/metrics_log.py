"""The log of a run: one JSON object a line, and the same figures for TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType

from ghnq.files import write_text
from ghnq.training.run.tensorboard import Board, append

LOG = "log.jsonl"


class Journal:
    """Appends figures to `log.jsonl` and to `tensorboard/` in a directory; unbuffered, so a killed run loses no line.

    resume_at: the step that a run goes on from; what was logged after it is dropped.
    """

    def __init__(self, directory: Path, *, resume_at: int) -> None:
        self.path = directory / LOG
        self._forget_after(resume_at)
        self._board = Board(directory / "tensorboard", resume_at=resume_at)
        self._file = self.path.open("ab", buffering=0)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """figures: name -> value, null in the file if not finite; a name with a slash is grouped by TensorBoard."""
        self.note(step, {name: value if math.isfinite(value) else None for name, value in figures.items()})
        for name, value in figures.items():
            self._board.add(name, value, step)

    def note(self, step: int, facts: dict[str, object]) -> None:
        """Writes a line of anything JSON can hold, to `log.jsonl` alone."""
        append(self._file, (json.dumps({"step": step, **facts}, allow_nan=False) + "\n").encode())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()

    def _forget_after(self, step: int) -> None:
        """Drops what an interrupted run logged after the state that it is resumed from, and a line cut short."""
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """The step of a log line; infinite for a line that a crash cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
