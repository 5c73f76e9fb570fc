"""Whether exported files compute what was simulated: top-1 agreement, accuracy, kernels, over many networks.

    python benchmarks/parity.py CHECKPOINT --data DATA [--networks 50] [--images 2000] [--schemes w8a8,w4a8] [--json]
        [--runtime onnx|pt2|compiled|saturating]

Runtimes: an ONNX file on ONNX Runtime; a torch.export program as loaded; the same lowered to x86 and compiled; and
compiled after torchao's own lowering, which also lowers the layers that saturate without VNNI.
Networks: the first of split `test`, and those of `named.py`, with predicted weights. `evaluated` is the accuracy of the
layer-only simulation that `ghnq evaluate` reports.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

import named
from ghnq.data import ImageDataset
from ghnq.deploy import Origin, export_onnx, export_program, verify, verify_program
from ghnq.evaluation import count_correct
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize
from ghnq.prediction import dataset_for
from ghnq.quant import quantize
from ghnq.spaces import convnets


def networks(count: int, dataset: ImageDataset, with_named: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules without weights."""
    for i in range(count):
        spec = convnets.spec("test", i)
        shape = {"in_channels": dataset.input_shape[0], "num_classes": dataset.num_classes}
        yield f"convnets/test/{i}", convnets.build(spec, **shape, device="meta")
    for name, build in named.NAMED.items():
        if with_named and dataset.input_shape == (3, 32, 32):
            yield name, build()


RUNTIMES = ("onnx", "pt2", "compiled", "saturating")


def measure(
    network: nn.Module, scheme: str, dataset: ImageDataset, images: int, evaluated: bool, runtime: str
) -> dict[str, Any]:
    """One row: one network under one scheme."""
    calibration = dataset.calibration(512, 0)
    origin = Origin(mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist()))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ("model.onnx" if runtime == "onnx" else "model.pt2")
        write = export_onnx if runtime == "onnx" else export_program
        size = write(network, scheme, calibration=calibration, out=file, origin=origin).size
        compared = _onnx(file, dataset, images) if runtime == "onnx" else _program(file, dataset, images, runtime)
    row = {"scheme": scheme, **compared, "bytes": size}
    if evaluated:
        layers_only = quantize(network, scheme, calibration=calibration)
        row["evaluated"] = 100 * count_correct(layers_only, dataset, dataset.test.first(images)).correct / images
    return row


def _onnx(file: Path, dataset: ImageDataset, images: int) -> dict[str, Any]:
    parity = verify(file, dataset, images=images)
    return {
        "agreement": 100 * parity.agreement,
        "simulation": 100 * parity.accuracy_simulation,
        "runtime": 100 * parity.accuracy_runtime,
        "steps": parity.largest_difference_steps,
        "float_layers": len(parity.kernels.float_layers),
        "float_ops": sum(parity.kernels.floating.values()),
        "vnni": parity.processor.dot_product,
    }


def _program(file: Path, dataset: ImageDataset, images: int, runtime: str) -> dict[str, Any]:
    parity = verify_program(file, dataset, images=images, compile=runtime != "pt2", exact=runtime != "saturating")
    run = parity.compiled or parity.eager
    return {
        "agreement": 100 * run.agreement,
        "simulation": 100 * parity.accuracy_simulation,
        "runtime": 100 * run.accuracy,
        "steps": run.largest_difference_steps,
        "integer_layers": sum(parity.compiled.kernels.integer.values()) if parity.compiled else 0,
        "float_layers": len(parity.compiled.kernels.float_layers) if parity.compiled else 0,
        "vnni": parity.processor.dot_product,
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per scheme: what all networks hold together."""
    lines = []
    for scheme in dict.fromkeys(row["scheme"] for row in rows):
        these = [row for row in rows if row["scheme"] == scheme]
        line = {
            "scheme": scheme,
            "networks": len(these),
            "mean_agreement": mean(row["agreement"] for row in these),
            "lowest_agreement": min(row["agreement"] for row in these),
            "largest_accuracy_difference": max(abs(row["simulation"] - row["runtime"]) for row in these),
            "largest_difference_steps": max(row["steps"] or 0.0 for row in these),
            "float_layers": sum(row["float_layers"] for row in these),
            "mean_runtime": mean(row["runtime"] for row in these),
        }
        if all("evaluated" in row for row in these):
            line["mean_evaluated"] = mean(row["evaluated"] for row in these)
            line["mean_runtime_minus_evaluated"] = mean(row["runtime"] - row["evaluated"] for row in these)
        lines.append(line)
    return lines


def main() -> None:
    """Prints a row per network and scheme as they come, then the summary."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--data")
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--schemes", default="w8a8,w4a8")
    parser.add_argument("--evaluated", action="store_true", help="measure the layer-only simulation as well")
    parser.add_argument("--runtime", choices=RUNTIMES, default="onnx")
    parser.add_argument("--no-named", action="store_true", help="leave out the networks of named.py")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ghn = GHN.from_pretrained(options.checkpoint)
    dataset = dataset_for(ghn, options.data)
    rows = []
    for name, module in networks(options.networks, dataset, not options.no_named):
        network = initialize(module, ghn, dataset.input_shape)
        for scheme in options.schemes.split(","):
            row = {
                "network": name,
                **measure(network, scheme, dataset, options.images, options.evaluated, options.runtime),
            }
            rows.append(row)
            if not options.json:
                print("  ".join(f"{key} {_text(value)}" for key, value in row.items()), flush=True)
    if options.json:
        print(json.dumps({"rows": rows, "summary": summary(rows)}, indent=2))
        return
    for line in summary(rows):
        print("  ".join(f"{key} {_text(value)}" for key, value in line.items()))


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
