"""Accuracy of predicted weights for networks with names that are in no space (benchmarks/named.py).

    python benchmarks/named_accuracy.py CHECKPOINT --data ../shared/data [--images 2000] [--steps A,B]
        [--networks resnet8,resnet20] [--calibration 512] [--out FILE.json]

Each network under each scheme and both protocols, with no training of the networks. `--steps` are post-training steps
of protocol `deploy`. At w2a2 the first and the last layer stay at 8 bits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from ghnq.data import ImageDataset
from ghnq.errors import NotFiniteError
from ghnq.evaluation import count_correct
from ghnq.files import write_text
from ghnq.hypernet import GHN, initialize
from ghnq.hypernet.checkpoint import checkpoint_hash
from ghnq.prediction import dataset_for
from ghnq.quant import QuantScheme, prepare
from named import NAMED

SCHEMES = ("float32", "w8a8", "w4a8", "w4a4", "w2a2")


def ends_at_8_bits(scheme: str, network: nn.Module) -> str:
    """Returns the scheme; for w2a2, with the first and the last layer of the network at 8 bits."""
    if scheme != "w2a2":
        return scheme
    layers = [name for name, child in network.named_modules() if isinstance(child, nn.Conv2d | nn.Linear)]
    return f"{scheme}+{layers[0]}=w8a8+{layers[-1]}=w8a8"


def accuracy(
    ghn: GHN, module: nn.Module, scheme: QuantScheme, dataset: ImageDataset, images: int, calibration: int
) -> float:
    """In percent; 0 for a network that overflows."""
    network = initialize(module, ghn, dataset.input_shape, scheme=scheme)
    try:
        quantized = prepare(network, dataset.calibration(calibration, 0)).quantize(scheme)
    except NotFiniteError:
        return 0.0
    return 100 * count_correct(quantized, dataset, dataset.test.first(images)).correct / images


def markdown(rows: list[dict[str, Any]]) -> str:
    """One line per network and protocol."""
    lines = ["| network | protocol | " + " | ".join(SCHEMES) + " |", "|---" * (2 + len(SCHEMES)) + "|"]
    for row in rows:
        cells = " | ".join(f"{row[scheme]:.1f}" for scheme in SCHEMES)
        lines.append(f"| {row['network']} | {row['protocol']} | {cells} |")
    return "\n".join(lines) + "\n"


def main(
    checkpoint: str,
    data: Annotated[str | None, typer.Option(help="Directory or hub id; absent: the checkpoint's.")] = None,
    images: Annotated[int, typer.Option(help="Test images.")] = 2000,
    steps: Annotated[str, typer.Option(help="Post-training steps of `deploy`, comma-separated.")] = "",
    networks: Annotated[str, typer.Option(help="Names in benchmarks/named.py, comma-separated.")] = ",".join(NAMED),
    calibration: Annotated[int, typer.Option(help="Calibration images.")] = 512,
    out: Annotated[Path | None, typer.Option(help="Keep the rows here.")] = None,
) -> None:
    """Prints a table."""
    torch.set_num_threads(1)
    ghn = GHN.from_pretrained(checkpoint)
    dataset = dataset_for(ghn, data)
    rows: list[dict[str, Any]] = []
    for protocol, chosen in (("deploy", tuple(filter(None, steps.split(",")))), ("paper", ())):
        for network in networks.split(","):
            module, row = NAMED[network](), {"network": network, "protocol": protocol}
            for name in SCHEMES:
                scheme = QuantScheme.parse(ends_at_8_bits(name, module), protocol=protocol, steps=chosen)
                row[name] = accuracy(ghn, module, scheme, dataset, images, calibration)
            rows.append(row)
    if out is not None:
        about = {"images": images, "steps": steps, "checkpoint_hash": checkpoint_hash(checkpoint), "rows": rows}
        write_text(out, json.dumps(about))
    print(markdown(rows))


if __name__ == "__main__":
    typer.run(main)
