"""What `ghnq sensitivity` writes: the errors of the layers of one network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ghnq.report.document import Accuracies, AccuracyRow, Document, LayerRow, Layers, Setting
from ghnq.report.graph_file import read_graphs
from ghnq.report.readers.reader import Reader, facts, number, protocol_and_steps, read_object, reading, steps_fact
from ghnq.runs.command_record import recorded_commands

FILE = "sensitivity.json"
NATS = 1000
"""Divergences are shown in nats / 1000."""


def sensitivity_document(folder: Path, content: dict[str, Any], file: Path) -> Document:
    """Returns the document of what `ghnq sensitivity --json` prints.

    Raises:
        DataError: It is of another version.
    """
    return reading(file, lambda: _document(folder, content))


def _read(folder: Path) -> Document:
    file = folder / FILE
    keys = ("model", "data", "scheme", "protocol", "images", "float32", "quantized", "layers")
    return sensitivity_document(folder, read_object(file, keys), file)


def _document(folder: Path, content: dict[str, Any]) -> Document:
    model, scheme = str(content["model"]), str(content["scheme"])
    whole = number(content["quantized"]["divergence"])
    images = int(content["images"])
    in_float, quantized = (float(content[key]["accuracy"]) for key in ("float32", "quantized"))
    accuracies = [
        AccuracyRow(architecture=model, split="models", scheme=name, accuracy=accuracy, drop=in_float - accuracy)
        for name, accuracy in (("float32", in_float), (scheme, quantized))
    ]
    return Document(
        name=folder.name or str(folder),
        kind="sensitivity",
        folder=str(folder),
        facts=facts(content, "model", "checkpoint", "weights", "data", "scheme", "protocol", "images")
        + steps_fact(content),
        commands=recorded_commands(folder),
        graphs=read_graphs(folder),
        notes=[] if whole is not None else ["The quantized network overflows: what layers save is not known"],
        accuracies=Accuracies(setting=_setting(content, images), rows=accuracies),
        layers=Layers(
            model=model, scheme=scheme, images=images, rows=[_layer(row, whole) for row in content["layers"]]
        ),
    )


def _layer(row: dict[str, Any], whole: float | None) -> LayerRow:
    alone, all_but = number(row["alone"]["divergence"]), number(row["all_but"]["divergence"])
    return LayerRow(
        layer=str(row["layer"]),
        bits=str(row["bits"]),
        weights=int(row["weights"]),
        multiply_adds=int(row["multiply_adds"]),
        alone=None if alone is None else NATS * alone,
        saved=None if whole is None or all_but is None else NATS * (whole - all_but),
        sqnr=number(row["alone"]["sqnr"]),
        accuracy_alone=number(row["alone"]["accuracy"]),
    )


def _setting(content: dict[str, Any], images: int) -> Setting:
    protocol, steps = protocol_and_steps(content)
    return Setting(
        data=str(content["data"]),
        data_hash=str(content.get("data_sha256", "")),
        images=images,
        protocol=protocol,
        steps=steps,
    )


READER = Reader("sensitivity", lambda folder: (folder / FILE).is_file(), _read, FILE)
