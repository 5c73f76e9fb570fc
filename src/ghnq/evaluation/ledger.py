"""Finished rows of an evaluation on disk, so that an interrupted one can be resumed (`ghnq.runs.row_ledger`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ghnq.evaluation.rows import Row, is_row
from ghnq.runs.row_ledger import FILE as FILE
from ghnq.runs.row_ledger import RowLedger

Key = tuple[str, int, str]


class Ledger(RowLedger[Key, Row]):
    """One row for each architecture and scheme, of a split and an index."""

    def key(self, row: Row) -> Key:
        """Returns split, index and scheme."""
        return row["split"], row["index"], row["scheme"]

    def parse(self, value: Mapping[str, Any]) -> Row | None:
        """Returns the row if keys, types and counts are right."""
        return Row(**value) if is_row(value) else None  # type: ignore[typeddict-item]
