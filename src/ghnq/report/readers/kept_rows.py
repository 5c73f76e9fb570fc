"""The rows that measurements keep as they are made, where they are all that there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ghnq.runs.row_ledger import FILE, Kept


def measured_by(file: Path) -> str:
    """Returns the command that keeps the rows of a file, by its first line; without one it is `evaluate`."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            fingerprint = json.loads(lines.readline())
    except (OSError, ValueError, RecursionError):
        return "evaluate"  # whose reader says what is wrong with the file
    command = fingerprint.get("command") if isinstance(fingerprint, dict) else None
    return command if isinstance(command, str) else "evaluate"


def notes_of(kept: Kept[Any], table: str) -> list[str]:
    """Returns notes about rows that have no table yet."""
    notes = [f"There is no {table}: these are the {len(kept.rows):,} rows of {FILE}, which are kept as they are made"]
    return notes + (["The last line was cut off and is left out"] if kept.cut else [])
