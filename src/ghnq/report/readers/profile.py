"""What `ghnq profile` writes: the costs of one exported file, beside those of the same network in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ghnq.report.document import CostRow, Costs, Document
from ghnq.report.readers.reader import Reader, facts, read_object, reading
from ghnq.runs.command_record import recorded_commands

FILE = "profile.json"
_COSTS = (
    ("bit_operations", "bit-operations for one image", ""),
    ("bytes", "file", "bytes"),
    ("weight_bytes", "weights as stored", "bytes"),
    ("packed_weight_bytes", "weights packed to their bits", "bytes"),
    ("compressed_bytes", "file, compressed", "bytes"),
    ("compressed_weight_bytes", "weights, compressed", "bytes"),
    ("peak_activation_bytes", "peak of activations, one image", "bytes"),
)


def _read(folder: Path) -> Document:
    keys = ("file", "facts", "quantized", "float32", "multiply_adds", "batch", "threads", "repeats")
    content = read_object(folder / FILE, keys)
    return reading(folder / FILE, lambda: _document(folder, content))


def _document(folder: Path, content: dict[str, Any]) -> Document:
    this, other = content["quantized"], content["float32"]
    rows = [
        CostRow(cost=name, unit=unit, file=float(this[key]), float32=float(other[key])) for key, name, unit in _COSTS
    ]
    rows += [
        CostRow(cost=name, unit="ms", file=float(this["latency"][key]), float32=float(other["latency"][key]))
        for key, name in (("median_ms", "latency, median"), ("p95_ms", "latency, 95th percentile"))
    ]
    measured = (
        f"latency in turns: batch {content['batch']}, threads {content['threads']}, {content['repeats']:,} runs of "
        f"each on ONNX Runtime {content.get('onnxruntime', '')}"
    )
    origin = content["facts"].get("origin") or {}
    return Document(
        name=folder.name or str(folder),
        kind="profile",
        folder=str(folder),
        facts=[
            *facts(content, "file"),
            *facts(content["facts"], "scheme", "protocol", "calibration_images"),
            *facts(origin, "model", "checkpoint", "weights", "data"),
            *facts(content, "weights", "multiply_adds"),
        ],
        commands=recorded_commands(folder),
        notes=[f"{len(content['float_layers'])} layers run in float"] if content.get("float_layers") else [],
        costs=Costs(file=str(content["file"]), measured=measured, rows=rows),
    )


READER = Reader("profile", lambda folder: (folder / FILE).is_file(), _read, FILE)
