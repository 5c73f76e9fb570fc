"""Claim: what each post-training step gives on predicted networks, and what other tools give on the same weights.

    python benchmarks/ptq.py --checkpoint digits [--data DATA] [--networks 6] [--images 500] [--out FILE]

For each of the first networks of split `test`: parameters are predicted once; then every scheme is measured with no
step, with each step alone and with sets of steps, and with ONNX Runtime's `quantize_static` (activations of 8 bits
only; weights of 4 bits as QInt4) and torchao's pt2e flow on the folded float network. All use the same 512 calibration
images. Accuracy in percent, mean over networks; beside it the paired difference to `no step` with its standard error.
`w2a2` keeps the first and the last layer at 8 bits. `--out` keeps the rows and goes on from those that it finds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from ghnq.errors import NotFiniteError
from ghnq.evaluation import count_correct
from ghnq.graph import trace
from ghnq.hypernet import GHN, with_parameters
from ghnq.hypernet.checkpoint import checkpoint_hash
from ghnq.prediction import dataset_for
from ghnq.quant import POST_TRAINING_STEPS, Prepared, QuantScheme, prepare
from ghnq.spaces import convnets
from ptq_others import onnx_runtime, torchao_pt2e

SCHEMES = {"w8a8": "w8a8", "w4a8": "w4a8", "w4a4": "w4a4", "w2a2": "w2a2+stem.conv=w8a8+classifier=w8a8"}
SETS = {
    "no step": (),
    **{step: (step,) for step in POST_TRAINING_STEPS},
    "all but equalize": tuple(step for step in POST_TRAINING_STEPS if step != "equalize"),
    "all": tuple(POST_TRAINING_STEPS),
}
PERCENTILE = "percentile activation ranges"
ORT, PT2E = "ONNX Runtime quantize_static", "torchao pt2e"
Row = dict[str, str | int | float]


def variants(prepared: Prepared, scheme_name: str) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Yields (name, function that quantizes) for everything that is compared under a scheme."""
    for name, steps in SETS.items():
        yield name, lambda steps=steps: prepared.quantize(QuantScheme.parse(scheme_name, steps=steps))
    yield PERCENTILE, lambda: prepared.quantize(QuantScheme.parse(scheme_name, activation_range="percentile"))
    folded, scheme = prepared.quantize("float32"), QuantScheme.parse(scheme_name)
    if scheme_name in ("w8a8", "w4a8"):
        yield ORT, lambda: onnx_runtime(folded, prepared.images, scheme.weight_bits)
    yield PT2E, lambda: torchao_pt2e(folded, prepared.images, prepared.layers(scheme))


def rows_of(ghn: GHN, index: int, args: argparse.Namespace, dataset, calibration, images, done: set) -> Iterator[Row]:
    """The rows of one network that are not in `done`, (scheme, variant)."""
    spec = convnets.spec("test", index)
    skeleton = convnets.build(spec, in_channels=dataset.input_shape[0], num_classes=dataset.num_classes, device="meta")
    with torch.no_grad():
        network = with_parameters(skeleton, ghn.predict(trace(skeleton, dataset.input_shape))).eval()
    prepared = prepare(network, calibration)
    in_float = count_correct(prepared.quantize("float32"), dataset, images).correct
    if ("float32", "float32") not in done:
        yield {"index": index, "scheme": "float32", "variant": "float32", "accuracy": 100 * in_float / len(images)}
    for scheme in args.schemes.split(","):
        for name, make in variants(prepared, SCHEMES[scheme]):
            if (scheme, name) in done:
                continue
            try:
                correct = count_correct(make(), dataset, images).correct
            except NotFiniteError:  # the network overflows: no answer is right
                correct = 0
            yield {"index": index, "scheme": scheme, "variant": name, "accuracy": 100 * correct / len(images)}


def table(rows: list[Row]) -> str:
    """Markdown: one line per variant, one column per scheme."""
    by: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        by.setdefault((str(row["variant"]), str(row["scheme"])), {})[int(row["index"])] = float(row["accuracy"])
    schemes = list(dict.fromkeys(str(row["scheme"]) for row in rows if row["scheme"] != "float32"))
    in_float = by["float32", "float32"]
    lines = [f"float32: {statistics.mean(in_float.values()):.1f} over {len(in_float)} networks", ""]
    lines += ["| | " + " | ".join(schemes) + " |", "|---" * (1 + len(schemes)) + "|"]
    for variant in [*SETS, PERCENTILE, ORT, PT2E]:
        cells = [_cell(by.get((variant, scheme), {}), by.get(("no step", scheme), {})) for scheme in schemes]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: dict[int, float], base: dict[int, float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values.values()):.1f}"
    differences = [values[index] - base[index] for index in values]
    if values is base or len(differences) < 2:
        return mean
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{mean} ({statistics.mean(differences):+.1f} ± {error:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="digits")
    parser.add_argument("--data")
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ghn = GHN.from_pretrained(args.checkpoint)
    dataset = dataset_for(ghn, args.data)
    calibration = dataset.calibration(min(512, len(dataset.train)), 0)
    images = dataset.test.first(min(args.images, len(dataset.test)))
    rows: list[Row] = []
    settings = {
        "checkpoint_hash": checkpoint_hash(args.checkpoint),
        "data": dataset.content_hash,
        "images": len(images),
    }
    if args.out is not None and args.out.exists():
        about, *rows = (json.loads(line) for line in args.out.read_text().splitlines())
        if about != settings:
            raise SystemExit(f"{args.out} holds rows of other settings: {about}")
    elif args.out is not None:
        args.out.write_text(json.dumps(settings) + "\n")
    for index in range(args.networks):
        done = {(row["scheme"], row["variant"]) for row in rows if row["index"] == index}
        new = list(rows_of(ghn, index, args, dataset, calibration, images, done))
        rows += new
        if args.out is not None:
            with args.out.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
        print(f"{index + 1} of {args.networks}", flush=True)
    print(f"\n{args.checkpoint} on {dataset.name}: {len(images)} test images, {len(calibration)} for calibration\n")
    print(table(rows))


if __name__ == "__main__":
    main()
