"""What `ghnq score` writes: finished (`results.parquet` and `summary.json`), or only the rows made so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ghnq.analysis.score_ledger import ScoreLedger
from ghnq.errors import DataError
from ghnq.report.document import Accuracies, AccuracyRow, Document, Setting
from ghnq.report.graph_file import read_graphs
from ghnq.report.readers.accuracy_rows import weight_bytes
from ghnq.report.readers.kept_rows import measured_by, notes_of
from ghnq.report.readers.reader import Reader, facts, protocol_and_steps, read_object, reading, steps_fact
from ghnq.runs.command_record import recorded_commands
from ghnq.runs.row_ledger import FILE as ROWS_FILE

TABLE_FILE, SUMMARY_FILE = "results.parquet", "summary.json"
_COLUMNS = ("model", "scheme", "accuracy", "drop_from_float32", "parameters", "multiply_adds")


def _recognises(folder: Path) -> bool:
    if (folder / TABLE_FILE).is_file():
        try:
            return "model" in pq.read_schema(folder / TABLE_FILE).names
        except (OSError, ValueError):
            return False
    return (folder / ROWS_FILE).is_file() and measured_by(folder / ROWS_FILE) == "score"


def _read(folder: Path) -> Document:
    if not (folder / TABLE_FILE).is_file():
        return _unfinished(folder)
    if not (folder / SUMMARY_FILE).is_file():
        raise DataError(f"'{folder}' is half-written: it has {TABLE_FILE}, but no {SUMMARY_FILE}; run the score again")
    summary = read_object(folder / SUMMARY_FILE, ("data", "on", "images", "protocol"))
    try:
        columns = pq.read_table(folder / TABLE_FILE, columns=list(_COLUMNS)).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"'{folder / TABLE_FILE}' is damaged, or of another version: {error}") from error
    values = list(zip(*(columns[name] for name in _COLUMNS), strict=True))
    return reading(folder / SUMMARY_FILE, lambda: _document(folder, summary, values, []))


def _unfinished(folder: Path) -> Document:
    kept = ScoreLedger(folder, {}, {}).read_only()
    if not kept.rows:
        raise DataError(f"'{folder / ROWS_FILE}' has no row yet; run the score to its end")
    in_float = {row["model"]: row["correct"] for row in kept.rows if row["scheme"] == "float32"}
    values = [
        (
            row["model"],
            row["scheme"],
            100 * row["correct"] / row["images"],
            100 * (in_float[row["model"]] - row["correct"]) / row["images"] if row["model"] in in_float else None,
            row["parameters"],
            row["multiply_adds"],
        )
        for row in kept.rows
    ]
    digest = str(kept.fingerprint.get("data_sha256", ""))
    steps = [step for step in str(kept.fingerprint.get("steps", "")).split(",") if step]
    summary = kept.fingerprint | {"data": f"images {digest[:8]}", "steps": steps}
    return reading(folder / ROWS_FILE, lambda: _document(folder, summary, values, notes_of(kept, TABLE_FILE)))


def _document(folder: Path, summary: dict[str, Any], values: Sequence[Sequence[Any]], notes: list[str]) -> Document:
    rows = [
        AccuracyRow(
            architecture=model, split="models", scheme=scheme, accuracy=accuracy, drop=drop, parameters=parameters,
            multiply_adds=multiply_adds, weight_bytes=weight_bytes(parameters, scheme),
        )
        for model, scheme, accuracy, drop, parameters, multiply_adds in values
    ]  # fmt: skip
    protocol, steps = protocol_and_steps(summary)
    setting = Setting(
        data=str(summary["data"]),
        data_hash=str(summary.get("data_sha256", "")),
        images=int(summary["images"]),
        of=str(summary["on"]),
        protocol=protocol,
        steps=steps,
    )
    return Document(
        name=folder.name or str(folder),
        kind="score",
        folder=str(folder),
        facts=[
            *facts(summary, "checkpoint", "weights", "data", "on", "images", "protocol"),
            *steps_fact(summary),
            *facts(summary, "ghnq_version"),
        ],
        commands=recorded_commands(folder),
        notes=notes,
        graphs=read_graphs(folder),
        accuracies=Accuracies(setting=setting, rows=rows),
    )


READER = Reader("score", _recognises, _read, f"{TABLE_FILE} and {SUMMARY_FILE}")
