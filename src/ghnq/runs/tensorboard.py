"""Scalars in TensorBoard's event format, on the disk as soon as they are written.

`torch.utils.tensorboard` writes from a thread, up to two minutes late: a killed run would lose values that its log
has, and a full disk would be reported by that thread instead of the run.
"""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import Any, BinaryIO


def append(file: BinaryIO, line: bytes) -> None:
    """Writes all of `line` to an unbuffered file.

    Raises:
        OSError: The disk is full, for example.
    """
    while line:
        line = line[file.write(line) :]


class EventFile:
    """An event file in a directory; it invalidates the events of earlier files after a step.

    Args:
        directory: Where the event files are.
        resume_at: Step from which a resumed run continues.
    """

    def __init__(self, directory: Path, *, resume_at: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        directory.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a directory in the order of their names, and only names like these.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (directory / name).open("xb", buffering=0)
        self._write(file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=resume_at + 1, session_log=start)

    def add(self, name: str, value: float, step: int) -> None:
        """Writes one scalar; TensorBoard groups names by what is before a slash."""
        self._write(step=step, summary=self._summary(value=[self._summary.Value(tag=name, simple_value=value)]))

    def close(self) -> None:
        self._file.close()

    def _write(self, **content: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(self._event(wall_time=time.time(), **content).SerializeToString())
        append(self._file, record.getvalue())
