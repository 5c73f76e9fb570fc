"""What `ghnq finetune` writes: the result, and the log of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ghnq.errors import DataError
from ghnq.finetune.result import RESULT
from ghnq.report.document import Accuracies, AccuracyRow, Curve, Document, Setting
from ghnq.report.graph_file import read_graphs
from ghnq.report.readers.reader import Reader, facts, number, read_object, reading
from ghnq.report.readers.training import RECIPE
from ghnq.report.readers.training_log import read_curves
from ghnq.runs.command_record import recorded_commands
from ghnq.runs.metrics_log import LOG

_REQUIRED = ("model", "data", "scheme", "steps", "test_images", "before", "after")


def _recognises(folder: Path) -> bool:
    return (folder / RESULT).is_file() or ((folder / LOG).is_file() and not (folder / RECIPE).is_file())


def _read(folder: Path) -> Document:
    curves, notes = read_curves(folder) if (folder / LOG).is_file() else ([], [f"There is no {LOG}"])
    if not (folder / RESULT).is_file():
        if not curves:
            raise DataError(f"'{folder}' is half-written: no {RESULT} and no entry in {LOG}; run or resume it")
        notes.append(f"There is no {RESULT}: the run is not finished")
        return _document(folder, [], curves, notes, None)
    result = read_object(folder / RESULT, _REQUIRED)
    return reading(folder / RESULT, lambda: _finished(folder, result, curves, notes))


def _finished(folder: Path, result: dict[str, Any], curves: list[Curve], notes: list[str]) -> Document:
    stated = facts(
        result, "model", "checkpoint", "init", "weights", "data", "scheme", "steps", "epochs", "seconds", "lr",
        "rollbacks", "test_images", "val_images", "val",
    )  # fmt: skip
    setting = Setting(
        data=str(result["data"]),
        data_hash=str(result.get("data_sha256", "")),
        images=int(result["test_images"]),
        protocol="deploy",
    )
    rows = [
        AccuracyRow(
            architecture=str(result["model"]), split=f"{when} training", scheme=scheme, accuracy=accuracy,
            drop=None if in_float is None else in_float - accuracy,
        )
        for when in ("before", "after")
        for in_float in [number(result[when].get("float32"))]
        for scheme, accuracy in ((each, number(value)) for each, value in result[when].items())
        if accuracy is not None
    ]  # fmt: skip
    return _document(folder, stated, curves, notes, Accuracies(setting=setting, rows=rows))


def _document(
    folder: Path,
    stated: list[tuple[str, str]],
    curves: list[Curve],
    notes: list[str],
    accuracies: Accuracies | None,
) -> Document:
    return Document(
        name=folder.name or str(folder),
        kind="finetune",
        folder=str(folder),
        facts=stated,
        commands=recorded_commands(folder),
        graphs=read_graphs(folder),
        notes=notes,
        accuracies=accuracies,
        curves=curves,
    )


READER = Reader("finetune", _recognises, _read, f"{RESULT} or {LOG}")
