"""What `ghnq rank` writes: the result, and a line for each candidate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ghnq.errors import DataError
from ghnq.report.document import Accuracies, AccuracyRow, Document, Setting
from ghnq.report.graph_file import read_graphs
from ghnq.report.ranking_part import SIZES, BestRow, CandidateRow, RankingPart, RoundRow, WorthRow
from ghnq.report.readers.accuracy_rows import weight_bytes
from ghnq.report.readers.kept_rows import measured_by
from ghnq.report.readers.reader import (
    Reader,
    facts,
    number,
    protocol_and_steps,
    read_lines,
    read_with_lines,
    reading,
    steps_fact,
)
from ghnq.runs.command_record import recorded_commands
from ghnq.runs.row_ledger import FILE as ROWS_FILE

FILE, CANDIDATES_FILE = "ranking.json", "candidates.jsonl"
MOST_CANDIDATES = 20_000
"""Candidates on a page: those that were measured first."""
_KEYS = ("data", "by", "schemes", "images", "worth", "candidates", "limits", "rounds", "rows", "failed", "image_shape")


def _recognises(folder: Path) -> bool:
    return (folder / FILE).is_file() or (
        (folder / ROWS_FILE).is_file() and measured_by(folder / ROWS_FILE) == "rank"
    )  # fmt: skip


def _read(folder: Path) -> Document:
    if not (folder / FILE).is_file():
        kept = len(read_lines(folder / ROWS_FILE)) - 1
        raise DataError(
            f"'{folder}' is half-written: {max(kept, 0):,} lines of {ROWS_FILE}, and no {FILE}; the command that made "
            "it goes on from these when it is run again"
        )
    content, lines = read_with_lines(folder, FILE, _KEYS, CANDIDATES_FILE, again="run the ranking again")
    return reading(folder / FILE, lambda: _document(folder, content, lines))


def _document(folder: Path, content: dict[str, Any], lines: list[dict[str, Any]]) -> Document:
    candidates = sorted((_candidate(line) for line in lines), key=lambda row: (row.place is None, row.round is None))
    shown = candidates[:MOST_CANDIDATES]
    notes = [f"{len(content['failed']):,} candidates failed"] if content["failed"] else []
    if len(shown) < len(candidates):
        notes.append(f"{len(candidates) - len(shown):,} of {len(candidates):,} candidates are not on this page")
    channels, height, width = map(int, content["image_shape"])
    return Document(
        name=folder.name or str(folder),
        kind="rank",
        folder=str(folder),
        facts=[
            *facts(content, "checkpoint", "head", "data", "by", "protocol"),
            *steps_fact(content),
            *facts(content, "images", "test_images", "minutes", "seed", "candidates", "ghnq_version"),
        ],
        commands=recorded_commands(folder),
        notes=notes,
        accuracies=_accuracies(content),
        ranking=_ranking(content, shown),
        input_shape=(channels, height, width),
        num_classes=int(content["num_classes"]),
        graphs=read_graphs(folder),
    )


def _ranking(content: dict[str, Any], candidates: list[CandidateRow]) -> RankingPart:
    return RankingPart(
        signal=str(content["by"]),
        scheme=str(content["schemes"][0]),
        images=int(content["images"]),
        all=int(content["candidates"]),
        limits={str(name): int(limit) for name, limit in content["limits"].items()},
        worth=[str(sentence) for sentence in content["worth"]["sentences"]],
        signals=[_worth(str(name), each) for name, each in content["worth"]["signals"].items()],
        rounds=[
            RoundRow(
                candidates=int(row["candidates"]),
                signal=str(row.get("by", content["by"])),
                images=int(row["images"]),
                seconds=float(row["seconds"]),
            )
            for row in content["rounds"]
        ],
        best=[
            BestRow(
                model=str(row["model"]),
                accuracy={str(name): number(value) for name, value in row["accuracy"].items()},
                test={str(name): number(value) for name, value in row["test"].items()},
                latency_ms=number(row["latency_ms"]),
                pareto=bool(row["pareto"]),
            )
            for row in content["rows"]
        ],
        candidates=candidates,
        failures=[(str(each["model"]), str(each["reason"])) for each in content["failed"]],
    )


def _worth(signal: str, content: dict[str, Any]) -> WorthRow:
    interval, within = (
        None if content[key] is None else (float(content[key][0]), float(content[key][1]))
        for key in ("interval", "within_interval")
    )
    return WorthRow(
        signal=signal, tau=float(content["tau"]), interval=interval, within_budget=number(content["within_budget"]),
        within_interval=within,
    )  # fmt: skip


def _candidate(line: dict[str, Any]) -> CandidateRow:
    round_, place = (None if line[key] is None else int(line[key]) for key in ("round", "place"))
    sizes = {name: None if line[name] is None else int(line[name]) for name in SIZES}
    return CandidateRow(
        model=str(line["model"]), limit=str(line["limit"] or ""), round=round_, value=number(line["value"]),
        place=place, **sizes,
    )  # fmt: skip


def _accuracies(content: dict[str, Any]) -> Accuracies:
    """Returns the accuracies of the best: on test images where they were measured, else on held-out ones."""
    on_test = "test_images" in content
    rows = [
        AccuracyRow(
            architecture=str(row["model"]), split="models", scheme=scheme, accuracy=accuracy,
            drop=None if in_float is None else in_float - accuracy, parameters=int(row["parameters"]),
            multiply_adds=int(row["multiply_adds"]), weight_bytes=weight_bytes(int(row["parameters"]), scheme),
        )
        for row in content["rows"]
        for measured in [row["test" if on_test else "accuracy"]]
        for in_float in [number(measured.get("float32"))]
        for scheme, accuracy in ((str(name), number(value)) for name, value in measured.items())
        if accuracy is not None
    ]  # fmt: skip
    protocol, steps = protocol_and_steps(content)
    setting = Setting(
        data=str(content["data"]),
        data_hash=str(content.get("data_sha256", "")),
        images=int(content["test_images" if on_test else "images"]),
        of="test" if on_test else "val",
        protocol=protocol,
        steps=steps,
    )
    return Accuracies(setting=setting, rows=rows)


READER = Reader("rank", _recognises, _read, f"{FILE} and {CANDIDATES_FILE}")
