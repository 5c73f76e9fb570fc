"""What `ghnq mixed` writes: the bits of every layer, and the accuracy of the choice beside uniform bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ghnq.report.document import Accuracies, AccuracyRow, Document, LayerRow, Layers, Setting
from ghnq.report.graph_file import read_graphs
from ghnq.report.readers.reader import Reader, facts, number, protocol_and_steps, read_object, reading, steps_fact
from ghnq.runs.command_record import recorded_commands

FILE = "mixed.json"


def _read(folder: Path) -> Document:
    content = read_object(folder / FILE, ("model", "data", "budget_bits", "measure", "layers", "images", "measured"))
    return reading(folder / FILE, lambda: _document(folder, content))


def _document(folder: Path, content: dict[str, Any]) -> Document:
    model, images = str(content["model"]), int(content["images"])
    measured = {str(row["name"]): float(row["accuracy"]) for row in content["measured"]}
    costs = content.get("layer_costs", {})
    weights = sum(int(cost["weights"]) for cost in costs.values()) or None
    in_float = measured.get("float32")
    rows = [
        AccuracyRow(
            architecture=model,
            split="models",
            scheme=name,
            accuracy=accuracy,
            drop=None if in_float is None else in_float - accuracy,
            weight_bytes=None if weights is None or content["measure"] != "size" else weights * float(row["bits"]) / 8,
        )
        for row in content["measured"]
        for name, accuracy in [(str(row["name"]), float(row["accuracy"]))]
    ]
    layers = [
        LayerRow(
            layer=name,
            bits=str(bits),
            weights=_count(costs.get(name), "weights"),
            multiply_adds=_count(costs.get(name), "multiply_adds"),
        )
        for name, bits in content["layers"].items()
    ]
    return Document(
        name=folder.name or str(folder),
        kind="mixed",
        folder=str(folder),
        facts=facts(content, "model", "checkpoint", "weights", "data", "measure", "budget_bits", "images")
        + steps_fact(content),
        commands=recorded_commands(folder),
        graphs=read_graphs(folder),
        accuracies=Accuracies(setting=_setting(content, images), rows=rows),
        layers=Layers(model=model, scheme="mixed", images=None, rows=layers),
    )


def _count(cost: dict[str, Any] | None, key: str) -> int | None:
    value = None if cost is None else number(cost.get(key))
    return None if value is None else int(value)


def _setting(content: dict[str, Any], images: int) -> Setting:
    protocol, steps = protocol_and_steps(content)
    return Setting(
        data=str(content["data"]),
        data_hash=str(content.get("data_sha256", "")),
        images=images,
        protocol=protocol,
        steps=steps,
    )


READER = Reader("mixed", lambda folder: (folder / FILE).is_file(), _read, FILE)
