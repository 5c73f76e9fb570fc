"""The log of a run: one JSON object a line, and the same figures for TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType

from ghnq.files import write_text

LOG = "log.jsonl"


class Journal:
    """Appends figures to `log.jsonl` and to `tensorboard/` in a directory."""

    def __init__(self, directory: Path, *, resume_at: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = directory / LOG
        self._forget_after(resume_at)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(directory / "tensorboard", purge_step=resume_at)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """figures: name -> value, null in the file if not finite; a name with a slash is grouped by TensorBoard."""
        numbers = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self._file.write(json.dumps({"step": step, **numbers}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()

    def _forget_after(self, step: int) -> None:
        """Drops what an interrupted run logged after the state that it is resumed from."""
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.path, "".join(line for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """The step of a log line; infinite for a line that a crash cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
