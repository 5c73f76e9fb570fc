"""Finished rows on disk, so that an interrupted evaluation goes on where it was.

`rows.jsonl` in the output folder: the first line says what the rows hang on, each further line is one row, on the disk
before the next architecture is reported, or `{"machine": ...}`: where the rows after it were made. A last line that was
cut by a crash is dropped.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ghnq.errors import GhnqError, WriteError
from ghnq.evaluation.provenance import Machine
from ghnq.evaluation.rows import Row
from ghnq.files import lock

FILE = "rows.jsonl"
MACHINE = "machine"
Key = tuple[str, int, str]


class Ledger:
    """Rows kept in a folder, or in memory only where there is none; a context manager.

    machine: where rows that are added are made (`provenance.machine`). It decides the last bits of sums and is no part
    of the fingerprint: an evaluation may go on elsewhere, and says so.
    Raises GhnqError where the folder holds rows of another evaluation, is in use, or is damaged.
    """

    def __init__(self, folder: Path | None, fingerprint: dict[str, Any], machine: Machine) -> None:
        self._path = None if folder is None else folder / FILE
        self._fingerprint = json.loads(json.dumps(fingerprint))  # as it will be read back
        self._machine: Machine = json.loads(json.dumps(machine))
        self._last_machine: Machine | None = None  # that the file names
        self._descriptor = -1
        self._rows: dict[Key, Row] = {}
        self._origins: dict[Key, Machine | None] = {}

    def __enter__(self) -> Self:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                self._lock()
                self._read_back()
            except BaseException:
                os.close(self._descriptor)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._path is not None:
            os.close(self._descriptor)  # and with it the lock

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    def add(self, rows: list[Row]) -> None:
        """Keeps rows; they are on the disk when this returns. Raises WriteError where there is no room."""
        moved = [{MACHINE: self._machine}] if self._last_machine != self._machine else []
        self._append("".join(json.dumps(line) + "\n" for line in [*moved, *rows]))
        self._last_machine = self._machine
        self._remember(rows)

    def machines(self, keys: Iterable[Key]) -> list[Machine | None]:
        """Where these rows were made, each once; None for rows of a file that does not say."""
        found: list[Machine | None] = []
        for key in keys:
            if self._origins[key] not in found:
                found.append(self._origins[key])
        return found

    def _remember(self, rows: list[Row]) -> None:
        for row in rows:
            key = (row["split"], row["index"], row["scheme"])
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
                f"'{self._path}' cannot be written ({error.strerror or error}); make room there, then run the same "
                "evaluation again: it goes on from the rows that are kept"
            ) from error

    def _lock(self) -> None:
        if sys.platform != "win32" and not lock(self._descriptor):
            raise GhnqError(f"{self._path} is in use by another evaluation; wait for it or give another folder.")

    def _read_back(self) -> None:
        assert self._path is not None
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        os.ftruncate(self._descriptor, len(whole))
        if not whole:
            self._append(json.dumps(self._fingerprint) + "\n")
            return
        lines = whole.decode("utf-8", errors="replace").splitlines()
        self._check_fingerprint(self._parse(lines[0], 1))
        for number, line in enumerate(lines[1:], start=2):
            row = self._parse(line, number)
            if row.keys() == {MACHINE} and isinstance(row[MACHINE], dict):
                self._last_machine = row[MACHINE]
                continue
            if row.keys() != Row.__annotations__.keys():
                raise GhnqError(f"{self._path}, line {number}: is not a row of results; {_ADVICE}")
            self._remember([Row(**row)])  # type: ignore[typeddict-item]

    def _parse(self, line: str, number: int) -> dict[str, Any]:
        try:
            parsed = json.loads(line)
        except ValueError as error:
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


_ADVICE = "give another folder, or remove this one to start anew."
