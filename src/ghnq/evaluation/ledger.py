"""Finished rows on disk, so that an interrupted evaluation goes on where it was.

`rows.jsonl` in the output folder: the first line says what the rows hang on, each further line is one row, on the disk
before the next architecture is reported. A last line that was cut by a crash is dropped.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ghnq.errors import GhnqError, WriteError
from ghnq.evaluation.measure import Row
from ghnq.files import lock

FILE = "rows.jsonl"
Key = tuple[str, int, str]


class Ledger:
    """Rows kept in a folder, or in memory only where there is none; a context manager.

    Raises GhnqError where the folder holds rows of another evaluation, is in use, or is damaged.
    """

    def __init__(self, folder: Path | None, fingerprint: dict[str, Any]) -> None:
        self._path = None if folder is None else folder / FILE
        self._fingerprint = json.loads(json.dumps(fingerprint))  # as it will be read back
        self._descriptor = -1
        self._rows: dict[Key, Row] = {}

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
        self._append("".join(json.dumps(row) + "\n" for row in rows))
        self._remember(rows)

    def _remember(self, rows: list[Row]) -> None:
        self._rows.update({(row["split"], row["index"], row["scheme"]): row for row in rows})

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
