"""Finished rows of measurements on disk, so that an interrupted command can be resumed.

They are in `rows.jsonl` in the output folder. The first line is the fingerprint: what the rows depend on. Each further
line is a row, which is on disk before the next one is reported, or `{"machine": ...}`, the machine that made
the rows after it. A last line that a crash has cut is dropped.
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ghnq.errors import GhnqError, WriteError
from ghnq.files import lock

FILE = "rows.jsonl"
MACHINE = "machine"
Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row", bound=Mapping[str, Any])
Machine = dict[str, Any]


@dataclass(frozen=True)
class Kept(Generic[Row]):
    """What a file has: its fingerprint, its rows, and whether its last line was cut off."""

    fingerprint: dict[str, Any]
    rows: list[Row]
    cut: bool


class RowLedger(ABC, Generic[Key, Row]):
    """Rows kept in a folder, or only in memory where there is none; a context manager.

    Args:
        folder: Where `rows.jsonl` is; None keeps rows in memory.
        fingerprint: What rows depend on besides their key, as JSON.
        machine: The machine that makes the rows, as JSON. It may change the last bits of sums, but is not
            part of the fingerprint: an evaluation may be resumed on another machine, and the results name both.

    Raises:
        GhnqError: The folder holds rows of another evaluation, is in use, or is damaged.
    """

    def __init__(self, folder: Path | None, fingerprint: dict[str, Any], machine: Machine) -> None:
        self._path = None if folder is None else folder / FILE
        self._fingerprint = json.loads(json.dumps(fingerprint))  # As it will be read.
        self._machine: Machine = json.loads(json.dumps(machine))
        self._last_machine: Machine | None = None  # The last one in the file.
        self._descriptor = -1
        self._rows: dict[Key, Row] = {}
        self._origins: dict[Key, Machine | None] = {}

    @abstractmethod
    def key(self, row: Row) -> Key:
        """Returns what tells a row from all others."""

    @abstractmethod
    def parse(self, value: Mapping[str, Any]) -> Row | None:
        """Returns a line of the file as a row; None if it is none."""

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                raise WriteError(
                    f"'{self._path}' cannot be written ({error.strerror}); choose another folder"
                ) from error
            try:
                self._lock()
                self._read()
            except BaseException:
                os.close(self._descriptor)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._path is not None:
            os.close(self._descriptor)  # This releases the lock.

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    def add(self, rows: list[Row]) -> None:
        """Adds rows; they are on disk when this returns.

        Raises:
            WriteError: The file cannot be written.
        """
        machine_line = [{MACHINE: self._machine}] if self._last_machine != self._machine else []
        self._append("".join(json.dumps(line) + "\n" for line in [*machine_line, *rows]))
        self._last_machine = self._machine
        self._remember(rows)

    def machines(self, keys: Iterable[Key]) -> list[Machine | None]:
        """Returns the machines that made these rows, each once; None for rows whose machine is not known."""
        found: list[Machine | None] = []
        for key in keys:
            if self._origins[key] not in found:
                found.append(self._origins[key])
        return found

    def read_only(self) -> Kept[Row]:
        """Returns what is in the file, without a lock and whatever the fingerprint is; nothing is written.

        Raises:
            GhnqError: The file cannot be read, or is damaged.
        """
        assert self._path is not None
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise GhnqError(f"'{self._path}' cannot be read ({error.strerror or error})") from error
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.decode("utf-8", errors="replace").splitlines()
        fingerprint = self._parse(lines[0], 1) if lines else {}
        self._read_rows(lines[1:])
        return Kept(fingerprint, list(self._rows.values()), cut=len(whole) < len(content))

    def _remember(self, rows: list[Row]) -> None:
        for row in rows:
            key = self.key(row)
            self._rows[key], self._origins[key] = row, self._last_machine

    def _append(self, text: str) -> None:
        if self._path is None:
            return
        rest = text.encode()
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise WriteError(
                f"'{self._path}' cannot be written ({error.strerror or error}); free space there, then run the same "
                "evaluation again: it resumes from the rows that are kept"
            ) from error

    def _lock(self) -> None:
        if sys.platform != "win32" and not lock(self._descriptor):
            raise GhnqError(f"{self._path} is in use by another evaluation; wait for it, or give another folder.")

    def _read(self) -> None:
        assert self._path is not None
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        os.ftruncate(self._descriptor, len(whole))
        if not whole:
            self._append(json.dumps(self._fingerprint) + "\n")
            return
        lines = whole.decode("utf-8", errors="replace").splitlines()
        self._check_fingerprint(self._parse(lines[0], 1))
        self._read_rows(lines[1:])

    def _read_rows(self, lines: Iterable[str]) -> None:
        for number, line in enumerate(lines, start=2):
            value = self._parse(line, number)
            if value.keys() == {MACHINE} and isinstance(value[MACHINE], dict):
                self._last_machine = value[MACHINE]
                continue
            row = self.parse(value)
            if row is None:
                raise GhnqError(f"{self._path}, line {number}: is not a row of results; {_ADVICE}")
            self._remember([row])

    def _parse(self, line: str, number: int) -> dict[str, Any]:
        try:
            parsed = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GhnqError(f"{self._path}, line {number}: is damaged ({error}); {_ADVICE}") from error
        if not isinstance(parsed, dict):
            raise GhnqError(f"{self._path}, line {number}: is damaged; {_ADVICE}")
        return parsed

    def _check_fingerprint(self, found: dict[str, Any]) -> None:
        wanted = self._fingerprint
        differing = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
        if differing:
            details = "; ".join(f"{key} was {found.get(key)}, now {wanted.get(key)}" for key in differing)
            raise GhnqError(
                f"{self._path.parent if self._path else ''} holds another evaluation: {details}. {_ADVICE.capitalize()}"
            )


_ADVICE = "give another folder, or remove this one to start again."
