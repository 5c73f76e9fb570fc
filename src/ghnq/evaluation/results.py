"""The tidy table of an evaluation, and what is made from it: summary, JSON document, files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ghnq.errors import DataError
from ghnq.evaluation.rows import Row
from ghnq.files import atomic_path, write_text

TABLE_FILE, SUMMARY_FILE = "results.parquet", "summary.json"

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("index", pa.int32()),
        ("structure_hash", pa.string()),
        ("scheme", pa.string()),
        ("protocol", pa.string()),
        ("accuracy", pa.float64()),  # percent
        ("drop_from_float32", pa.float64()),  # percentage points; null where float32 was not evaluated
        ("correct", pa.int32()),
        ("images", pa.int32()),
        ("nonfinite", pa.int32()),
        ("parameters", pa.int64()),
        ("multiply_adds", pa.int64()),
    ]
)


class SummaryRow(TypedDict):
    """One split under one scheme, over its architectures; accuracies in percent.

    Attributes:
        sem: Standard error of the mean, s / sqrt(n) with the sample standard deviation s (n-1); None for one
            architecture.
        drop_from_float32: Mean accuracy at float32 minus `mean`, over the same architectures; None without float32.
    """

    split: str
    scheme: str
    architectures: int
    images: int
    mean: float
    sem: float | None
    max: float
    min: float
    drop_from_float32: float | None


@dataclass(frozen=True, eq=False)
class Results:
    """One row per architecture and scheme (`SCHEMA`), and what they depend on (`about`, as JSON: see `protocol`)."""

    table: pa.Table
    about: dict[str, Any]

    @classmethod
    def from_rows(cls, rows: Iterable[Row], about: dict[str, Any]) -> Results:
        """Computes accuracy and drop for every row; keeps the order."""
        rows = list(rows)
        in_float = {(row["split"], row["index"]): _accuracy(row) for row in rows if row["scheme"] == "float32"}
        full = [
            {
                **row,
                "accuracy": _accuracy(row),
                "drop_from_float32": _drop(in_float.get((row["split"], row["index"])), row),
            }
            for row in rows
        ]
        return cls(pa.Table.from_pylist(full, schema=SCHEMA), about)

    def summary_rows(self) -> list[SummaryRow]:
        """Mean, standard error, max and min over architectures, for each split and scheme in their order."""
        return [_summarise(split, scheme, part) for split, scheme, part in self.parts()]

    def parts(self) -> Iterator[tuple[str, str, pa.Table]]:
        """Yields (split, scheme, its rows), in the order of the table."""
        for split in self.splits:
            of_split = self.table.filter(pc.equal(self.table["split"], split))
            for scheme in self.schemes:
                part = of_split.filter(pc.equal(of_split["scheme"], scheme))
                if len(part):
                    yield split, scheme, part

    @property
    def splits(self) -> list[str]:
        """The splits, in their order."""
        return list(self.table["split"].unique().to_pylist())

    @property
    def schemes(self) -> list[str]:
        """The schemes, in their order."""
        return list(self.table["scheme"].unique().to_pylist())

    @property
    def nonfinite(self) -> int:
        """For how many images, over all rows, a logit was NaN or infinite."""
        return int(pc.sum(self.table["nonfinite"]).as_py() or 0)

    @property
    def setting(self) -> str:
        """Protocol and steps for titles; where they differ between schemes, those of each."""
        schemes_of: dict[str, list[str]] = {}
        for scheme, setting in self.about.get("settings", {}).items():
            schemes_of.setdefault(setting, []).append(scheme)
        if schemes_of:
            return "; ".join(f"{setting} ({', '.join(schemes)})" for setting, schemes in schemes_of.items())
        return " + ".join((f"{self.about['protocol']} protocol", *self.about.get("steps", ())))

    def document(self) -> dict[str, Any]:
        """Returns the JSON document that `ghnq evaluate --json` prints."""
        return {
            "checkpoint": self.about["checkpoint"],
            "data": self.about["data"],
            "protocol": self.about["protocol"],
            **{key: self.about[key] for key in ("steps", "settings") if key in self.about},
            "rows": self.summary_rows(),
        }

    def summary(self) -> dict[str, Any]:
        """Returns the content of `summary.json`: `about`, how many images had NaN or infinite logits, and the rows."""
        return {**self.about, "nonfinite": self.nonfinite, "rows": self.summary_rows()}

    def save(self, folder: Path) -> None:
        """Writes `results.parquet` and `summary.json`, each whole or not at all."""
        table = self.table.replace_schema_metadata({"ghnq": json.dumps(self.about)})
        with atomic_path(folder / TABLE_FILE) as temporary:
            pq.write_table(table, temporary)
        write_text(folder / SUMMARY_FILE, json.dumps(self.summary(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Reads what `save` wrote.

        Raises:
            DataError: The table is missing, or `save` did not write it.
        """
        file = folder / TABLE_FILE
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"No results can be read from {file}: {error}") from error
        about = (table.schema.metadata or {}).get(b"ghnq")
        if about is None or not table.schema.equals(SCHEMA):
            raise DataError(f"{file} is not a table of ghnq results, or one of another version.")
        return cls(table.replace_schema_metadata(None), json.loads(about))


def _accuracy(row: Row) -> float:
    return 100 * row["correct"] / row["images"]


def _drop(in_float: float | None, row: Row) -> float | None:
    return None if in_float is None else in_float - _accuracy(row)


def _summarise(split: str, scheme: str, part: pa.Table) -> SummaryRow:
    accuracy = part["accuracy"].to_numpy()
    drops = part["drop_from_float32"].drop_null().to_numpy()
    count = len(accuracy)
    return SummaryRow(
        split=split,
        scheme=scheme,
        architectures=count,
        images=int(part["images"][0].as_py()),
        mean=float(np.mean(accuracy)),
        sem=float(np.std(accuracy, ddof=1) / math.sqrt(count)) if count > 1 else None,
        max=float(np.max(accuracy)),
        min=float(np.min(accuracy)),
        drop_from_float32=float(np.mean(drops)) if len(drops) == count else None,
    )
