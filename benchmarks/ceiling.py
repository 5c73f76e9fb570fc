"""What training each network on its own reaches in the space: the ceiling beside the mean of predicted weights.

    python benchmarks/ceiling.py --data ../shared/data --networks 20 --epochs 30
    cp runs/ceiling/rows.jsonl results/ceiling/cifar10/rows.jsonl

Members of `test`, from He's random weights, on all training images, with shifts and mirror images: Nesterov SGD with
momentum 0.9 and weight decay 5e-4, batches of 256, a rate that rises to 0.4 over three tenths of the steps and falls to
zero. Accuracy on all test images that the data hold. On a GPU each of --processes trains one network at a time; without
one, so do as many processes as there are cores. A network is a row of rows.jsonl as soon as it is trained, and a later
call goes on with the others.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from torch import nn

from ghnq import spaces
from ghnq.data import ImageDataset, load
from ghnq.evaluation.provenance import machine
from ghnq.memory import keep_freed_memory
from ghnq.runs.row_ledger import RowLedger
from ghnq.training.networks.depthwise import with_fast_depthwise

BATCH, PEAK, RISE = 256, 0.4, 0.3
SEED = 0


class CeilingLedger(RowLedger[str, dict[str, Any]]):
    """One row for each network."""

    def key(self, row: dict[str, Any]) -> str:
        return str(row["network"])

    def parse(self, value: Mapping[str, Any]) -> dict[str, Any] | None:
        return dict(value) if {"network", "accuracy"} <= value.keys() else None


def main(
    data: Annotated[str, typer.Option(help="Directory or hub id of CIFAR-10.")],
    out: Annotated[Path, typer.Option()] = Path("runs/ceiling"),
    networks: Annotated[int, typer.Option(help="So many members of `test`, from the first on.")] = 20,
    epochs: Annotated[float, typer.Option()] = 30.0,
    images: Annotated[int | None, typer.Option(help="Training images; all if absent.")] = None,
    processes: Annotated[int | None, typer.Option(help="Networks trained side by side.")] = None,
) -> None:
    """Trains the networks that are missing, the largest first."""
    whole = load(data)
    count = len(whole.train) if images is None else images
    space = spaces.get("convnets")
    words = [f"convnets/test/{index}" for index in range(networks)]
    words.sort(key=lambda word: -space.cost(spec_of(word)).multiply_adds)
    fingerprint = {
        "study": "ceiling", "data_sha256": whole.content_hash, "images": count, "epochs": epochs, "batch": BATCH,
        "rate": PEAK, "seed": SEED, "test_images": len(whole.test),
    }  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    console, work = Console(soft_wrap=True), partial(row_of, data=data, images=images, epochs=epochs, device=device)
    with CeilingLedger(out, fingerprint, machine()) as ledger:
        missing = [word for word in words if word not in ledger]
        with mp.get_context("spawn").Pool(min(processes or os.cpu_count() or 1, max(1, len(missing)))) as pool:
            for row in pool.imap_unordered(work, missing, chunksize=1):
                ledger.add([row])
                console.print(row, highlight=False)


def spec_of(word: str) -> Any:
    return spaces.get("convnets").spec("test", int(word.rpartition("/")[2]))


def row_of(word: str, *, data: str, images: int | None, epochs: float, device: str) -> dict[str, Any]:
    """Trains one network, in a process of its own."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    torch.manual_seed(SEED)
    place, dataset = torch.device(device), load(data)
    if images is not None:
        dataset = replace(dataset, train=dataset.train.balanced(images, SEED))
    dataset = replace(dataset, train=dataset.train.to(place), test=dataset.test.to(place))
    module = spaces.get("convnets").build(
        spec_of(word), in_channels=dataset.input_shape[0], num_classes=dataset.num_classes, device=device
    )
    network = with_fast_depthwise(module).to(memory_format=torch.channels_last)
    start = time.perf_counter()
    fit(network, dataset, round(epochs * len(dataset.train) / BATCH))
    return {
        "network": word, "accuracy": accuracy(network, dataset),
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(time.perf_counter() - start, 1), "device": device,
    }  # fmt: skip


def fit(network: nn.Module, dataset: ImageDataset, steps: int) -> None:
    """Trains for so many steps."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=PEAK, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=True
    )
    network.train()
    for step in range(steps):
        done = (step + 0.5) / steps
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(done / RISE, (1 - done) / (1 - RISE))
        pixels, labels = dataset.train_batch(step, BATCH, SEED)
        loss = F.cross_entropy(network(pixels.contiguous(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(network: nn.Module, dataset: ImageDataset) -> float:
    """Returns the accuracy on the test images, percent."""
    network.eval()
    correct = sum(
        int((network(dataset.normalise(pixels)).argmax(1) == labels).sum())
        for pixels, labels in zip(dataset.test.pixels.split(500), dataset.test.labels.split(500), strict=True)
    )
    return round(100 * correct / len(dataset.test), 2)


if __name__ == "__main__":
    typer.run(main)
