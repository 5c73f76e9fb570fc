"""The journal file of a study (Optuna's), mended after a crash or a full disk has cut off its last line."""

from __future__ import annotations

import os
from pathlib import Path

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

_BLOCK = 1 << 16


class _MendingLock(JournalFileSymlinkLock):
    """Who acquires the lock, and so writes next, drops a last line that is cut off.

    Without this the next line would be appended to the part, and the journal could not be read any more.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._journal = file

    def acquire(self) -> bool:
        acquired = super().acquire()
        try:
            drop_cut_line(self._journal)
        except BaseException:
            self.release()
            raise
        return acquired


def journal(file: Path) -> JournalFileBackend:
    """Returns the journal in a file, which is made if there is none.

    Raises:
        OSError: It cannot be written.
    """
    return JournalFileBackend(str(file), lock_obj=_MendingLock(file))


def drop_cut_line(file: Path) -> None:
    """Drops what follows the last end of a line; a part of a line is of a process that could not write the rest."""
    with file.open("r+b") as opened:
        end = opened.seek(0, os.SEEK_END)
        whole, position = 0, end
        while position > 0 and not whole:
            start = max(0, position - _BLOCK)
            opened.seek(start)
            found = opened.read(position - start).rfind(b"\n")
            whole = 0 if found < 0 else start + found + 1
            position = start
        if whole < end:
            opened.truncate(whole)
