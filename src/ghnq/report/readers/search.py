"""What `ghnq search` writes: the result, and a line for each architecture that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ghnq.errors import DataError
from ghnq.report.document import Accuracies, AccuracyRow, Document, Setting
from ghnq.report.graph_file import read_graphs
from ghnq.report.readers.accuracy_rows import weight_bytes
from ghnq.report.readers.reader import (
    Reader,
    facts,
    number,
    protocol_and_steps,
    read_with_lines,
    reading,
    steps_fact,
)
from ghnq.report.search_part import SearchPart, TrialRow
from ghnq.runs.command_record import recorded_commands

FILE, TRIALS_FILE, STUDY_FILE = "search.json", "trials.jsonl", "study.journal"
MOST_TRIALS = 20_000
_KEYS = ("data", "data_sha256", "scheme", "objectives", "directions", "signal", "worth", "images", "minutes", "front")
_PERCENT = {"accuracy": "front", "finetune": "front, fine-tuned for a short time"}
"""Signals that are accuracies, and what their architectures are grouped by."""


def _recognises(folder: Path) -> bool:
    return (folder / FILE).is_file() or (folder / STUDY_FILE).is_file()


def _read(folder: Path) -> Document:
    if not (folder / FILE).is_file():
        raise DataError(
            f"'{folder}' is half-written: it has a study, but no {FILE}; the command that made it goes on with --resume"
        )
    content, lines = read_with_lines(folder, FILE, _KEYS, TRIALS_FILE, again="go on with --resume")
    return reading(folder / FILE, lambda: _document(folder, content, lines))


def _document(folder: Path, content: dict[str, Any], lines: list[dict[str, Any]]) -> Document:
    trials = [_trial(line, content["objectives"]) for line in lines]
    shown = trials[-MOST_TRIALS:]
    notes = [] if shown == trials else [f"The first {len(trials) - len(shown):,} trials are not on this page"]
    return Document(
        name=folder.name or str(folder),
        kind="search",
        folder=str(folder),
        facts=[
            *facts(content, "checkpoint", "head", "data", "space", "scheme", "protocol"),
            *steps_fact(content),
            *facts(content, "signal", "images", "sampler", "seed", "trials", "ghnq_version"),
        ],
        commands=recorded_commands(folder),
        notes=notes,
        accuracies=_accuracies(content, trials),
        search=SearchPart(
            objectives={str(name): content["directions"][name] == "maximize" for name in content["objectives"]},
            signal=str(content["signal"]),
            scheme=str(content["scheme"]),
            images=int(content["images"]),
            minutes=float(content["minutes"] or 0),
            data=str(content["data"]),
            data_hash=str(content["data_sha256"]),
            sampler=str(content["sampler"]),
            seed=int(content["seed"]),
            worth=[str(sentence) for sentence in content["worth"]],
            trials=shown,
        ),
        graphs=read_graphs(folder),
    )


def _trial(line: dict[str, Any], objectives: list[str]) -> TrialRow:
    values = [number(line["values"][name]) for name in objectives]
    if None in values:
        raise ValueError("a trial without a value")
    return TrialRow(
        trial=int(line["trial"]),
        values=[float(value) for value in values if value is not None],
        parameters=int(line["parameters"]),
        depth=int(line["depth"]),
        family=str(line["family"]),
        model=str(line["model"]),
    )


def _accuracies(content: dict[str, Any], trials: list[TrialRow]) -> Accuracies | None:
    """Returns the accuracies of the front, where the signal is one."""
    objectives, split = list(content["objectives"]), _PERCENT.get(content["signal"])
    if "accuracy" not in objectives or split is None:
        return None
    at, macs = objectives.index("accuracy"), objectives.index("macs") if "macs" in objectives else None
    scheme = str(content["scheme"])
    rows = [
        AccuracyRow(
            architecture=row.model, split=split, scheme=scheme, accuracy=row.values[at], parameters=row.parameters,
            multiply_adds=None if macs is None else int(row.values[macs]),
            weight_bytes=weight_bytes(row.parameters, scheme),
        )
        for row in trials
        if row.model
    ]  # fmt: skip
    protocol, steps = protocol_and_steps(content)
    setting = Setting(
        data=str(content["data"]), data_hash=str(content["data_sha256"]), images=int(content["images"]), of="val",
        protocol=protocol, steps=steps,
    )  # fmt: skip
    return Accuracies(setting=setting, rows=rows)


READER = Reader("search", _recognises, _read, f"{FILE} and {TRIALS_FILE}")
