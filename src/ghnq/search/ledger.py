"""Finished measurements of a ranking on disk, so that an interrupted one goes on (`ghnq.runs.row_ledger`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_type_hints

from ghnq.runs.row_ledger import RowLedger
from ghnq.search.subject import Budget

On = Literal["val", "test"]
"""Held-out training images, or test images."""
Key = tuple[str, str, str, str, Budget]


class KeptRow(TypedDict):
    """One signal of one candidate; `network` is the hash of what it computes (`analysis.score_ledger.code_hash`)."""

    candidate: str
    network: str
    signal: str
    scheme: str
    on: On
    images: int
    finetuning_seconds: float
    value: float | None
    seconds: float


class RankLedger(RowLedger[Key, KeptRow]):
    """One row for each network, signal, scheme and budget."""

    def key(self, row: KeptRow) -> Key:
        """Returns network, signal, scheme, images and budget: candidates that are equal share a row."""
        budget = Budget(row["images"], row["finetuning_seconds"])
        return row["network"], row["signal"], row["scheme"], row["on"], budget

    def parse(self, value: Mapping[str, Any]) -> KeptRow | None:
        """Returns the row if keys and types are right, and numbers finite."""
        types = get_type_hints(KeptRow)
        if value.keys() != types.keys() or any(
            not (value[key] is None and key == "value") and type(value[key]) is not _plain(kind)
            for key, kind in types.items()
        ):
            return None
        numbers = [number for number in value.values() if isinstance(number, float)]
        if (
            value["images"] < 0
            or value["on"] not in ("val", "test")
            or not all(math.isfinite(number) for number in numbers)
        ):
            return None
        row: KeptRow = KeptRow(**value)  # type: ignore[typeddict-item]
        return row


def _plain(kind: object) -> object:
    if kind == On:
        return str
    return float if kind == float | None else kind
