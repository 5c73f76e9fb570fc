"""One process at a time trains in a directory."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from ghnq.errors import TrainingError
from ghnq.files import lock
from ghnq.runs.write_errors import report_write_errors

LOCK = ".lock"


class RunLock(AbstractContextManager["RunLock"]):
    """An exclusive lock on the directory of a run, from `acquire` to the end of the block, however it ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor = -1

    def acquire(self) -> None:
        """Acquires the lock; the directory is made if it is missing.

        Raises:
            TrainingError: Another process trains in it.
        """
        if self._descriptor >= 0 or sys.platform == "win32":
            return
        with report_write_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        if not lock(self._descriptor):
            holder = os.read(self._descriptor, 32).decode("ascii", errors="replace").strip()
            raise TrainingError(
                f"'{self.directory}' is being trained in by another process ({holder or 'unknown'}); wait for it, end "
                "it, or choose another --out"
            )
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)  # releases the lock
            self._descriptor = -1
