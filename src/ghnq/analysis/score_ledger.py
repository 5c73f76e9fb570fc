"""Finished rows of `ghnq score` on disk, so that an interrupted one can be resumed (`ghnq.runs.row_ledger`)."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, get_type_hints

from torch import nn

from ghnq.prediction import Network
from ghnq.runs.row_ledger import RowLedger

Key = tuple[str, str, str]
_OWN_PACKAGES = ("torch", "ghnq")  # their versions are told beside the rows


class KeptRow(TypedDict):
    """One network under one scheme, as it is kept; `network` is the hash of the network's code (`code_hash`)."""

    model: str
    network: str
    scheme: str
    protocol: str
    correct: int
    images: int
    nonfinite: int
    parameters: int
    multiply_adds: int


class ScoreLedger(RowLedger[Key, KeptRow]):
    """One row for each network and scheme."""

    def key(self, row: KeptRow) -> Key:
        """Returns model, hash of its code, and scheme."""
        return row["model"], row["network"], row["scheme"]

    def parse(self, value: Mapping[str, Any]) -> KeptRow | None:
        """Returns the row if keys, types and counts are right."""
        types = get_type_hints(KeptRow)
        if value.keys() != types.keys() or any(type(value[key]) is not kind for key, kind in types.items()):
            return None
        counts = [number for number in value.values() if isinstance(number, int)]
        fits = all(0 <= number < 2**63 for number in counts)
        if not fits or value["images"] == 0 or value["correct"] + value["nonfinite"] > value["images"]:
            return None
        row: KeptRow = KeptRow(**value)  # type: ignore[typeddict-item]
        return row


def code_hash(network: Network) -> str:
    """Returns a hash of what a network computes: its graph, its layers, and the files that its classes are defined in.

    A model that is edited between two calls gets another one, so that no row of the old model is taken for the new one.
    """
    digest = hashlib.sha256(network.graph.to_json().encode())
    digest.update(repr(network.module).encode())
    for file in _source_files(network.module):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _source_files(module: nn.Module) -> list[Path]:
    classes = {type(child) for child in module.modules()}
    found = set()
    for each in classes:
        if each.__module__.partition(".")[0] not in _OWN_PACKAGES:
            try:
                found.add(Path(inspect.getfile(each)))
            except (TypeError, OSError):  # a class of an interactive session
                continue
    return sorted(file for file in found if file.is_file())
