"""What `ghnq evaluate` and `ghnq demo` write: finished (`results.parquet`), or only the rows made so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ghnq.errors import DataError
from ghnq.evaluation.ledger import FILE as ROWS_FILE
from ghnq.evaluation.ledger import Ledger
from ghnq.evaluation.results import TABLE_FILE, Results
from ghnq.hypernet.checkpoint import checkpoint_hash, shipped_checkpoints
from ghnq.report.document import Accuracies, AccuracyRow, Document, Setting
from ghnq.report.readers.accuracy_rows import weight_bytes
from ghnq.report.readers.kept_rows import measured_by, notes_of
from ghnq.report.readers.reader import Reader, facts, protocol_and_steps, steps_fact
from ghnq.runs.command_record import recorded_commands
from ghnq.spaces import DEFAULT


def _recognises(folder: Path) -> bool:
    if (folder / TABLE_FILE).is_file():
        return not _is_score(folder / TABLE_FILE)
    return (folder / ROWS_FILE).is_file() and measured_by(folder / ROWS_FILE) == "evaluate"


def _is_score(file: Path) -> bool:
    """Returns whether the table is one of `ghnq score`, which names models, not members of splits."""
    try:
        return "model" in pq.read_schema(file).names
    except (OSError, ValueError):
        return False


def _read(folder: Path) -> Document:
    if (folder / TABLE_FILE).is_file():
        return _document(folder, Results.load(folder), [])
    kept = Ledger(folder, {}, {}).read_only()
    if not kept.rows:
        raise DataError(f"'{folder / ROWS_FILE}' has no row yet; run the evaluation to its end")
    fingerprint = kept.fingerprint
    about = fingerprint | {
        "checkpoint": _checkpoint_name(str(fingerprint.get("checkpoint_hash", ""))),
        "data": f"images {str(fingerprint.get('data_hash', ''))[:8]}",
    }
    return _document(folder, Results.from_rows(kept.rows, about), notes_of(kept, TABLE_FILE))


def _document(folder: Path, results: Results, notes: list[str]) -> Document:
    about = results.about
    columns = results.table.to_pydict()
    images = sorted(set(columns["images"]))
    if results.nonfinite:
        notes = [*notes, f"{results.nonfinite:,} images have a NaN or infinite logit and count as wrong"]
    try:
        protocol, steps = protocol_and_steps(about)
        setting = Setting(
            data=str(about["data"]),
            data_hash=str(about.get("data_hash", "")),
            images=images[-1] if images else None,
            protocol=protocol,
            steps=steps,
        )
        space = str(about.get("space", DEFAULT))
        shape = tuple(map(int, about.get("image_shape", ())))
        classes = about.get("hypernetwork", {}).get("num_classes")
        versions = about.get("versions", {})
        stated: list[tuple[str, str]] = [
            ("checkpoint", str(about["checkpoint"])),
            ("data", setting.data),
            ("protocol", setting.protocol),
            *steps_fact(about),
            *facts(about, "space", "test_images", "calibration_images", "seed"),
            *((f"{name} version", str(version)) for name, version in versions.items()),
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"'{folder}' was written by another version of ghnq ({error}); evaluate again") from error
    return Document(
        name=folder.name or str(folder),
        kind="evaluate",
        folder=str(folder),
        facts=stated,
        commands=recorded_commands(folder),
        notes=notes,
        accuracies=Accuracies(setting=setting, rows=_rows(space, columns)),
        input_shape=(shape[0], shape[1], shape[2]) if len(shape) == 3 else None,
        num_classes=classes if isinstance(classes, int) else None,
    )


def _rows(space: str, columns: dict[str, list[Any]]) -> list[AccuracyRow]:
    return [
        AccuracyRow(
            architecture=f"{space}/{split}/{index}",
            split=split,
            scheme=scheme,
            accuracy=accuracy,
            drop=drop,
            parameters=parameters,
            multiply_adds=multiply_adds,
            weight_bytes=weight_bytes(parameters, scheme),
        )
        for split, index, scheme, accuracy, drop, parameters, multiply_adds in zip(
            *(columns[name] for name in (
                "split", "index", "scheme", "accuracy", "drop_from_float32", "parameters", "multiply_adds"
            )),
            strict=True,
        )
    ]  # fmt: skip


def _checkpoint_name(digest: str) -> str:
    for name in shipped_checkpoints():
        if checkpoint_hash(name) == digest:
            return name
    return f"checkpoint {digest[:8]}"


READER = Reader("evaluate", _recognises, _read, f"{TABLE_FILE} or {ROWS_FILE}")
