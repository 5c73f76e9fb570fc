"""What networks reach when they are trained: the target of the ranking study (`benchmarks/ranking_study.py`).

    python benchmarks/ranking_truth.py --data ../shared/data --minutes 60
    cp runs/ranking-truth/rows.jsonl results/ranking/truth/rows.jsonl

The networks are those of `benchmarks/ranking_networks.py`: 40 members of `val` in each of two budget classes, and 20 of
named families. All are trained by one recipe, from He's random weights, on the same training images, of which none is
among those that `ghnq rank` measures on. Nesterov SGD, 15 epochs: the rate is constant for two thirds of them and
falls linearly to zero in the last third. Then the weights are trained on through quantization at w4a4, as networks for
4 bits are made; from scratch the same takes longer and ends lower.

A constant rate makes the half-length recipe a branch: after 5 epochs the rate falls in 2.5 (its warm-up apart, that is
the same recipe with half the epochs), is measured, and training goes on from where it left. The stages of a network:

    half    7.5 epochs in float
    float   15 epochs in float; also quantized to w4a4 after training, which tells what quantization costs
    w4a4    and QAT_EPOCHS more through quantization

Each stage is a row of rows.jsonl as soon as it is measured, on all test images; a later call goes on with the networks
that are missing. Any beginning of the order has as many of both classes, and some named ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn

from ghnq.data import ImageDataset, load
from ghnq.evaluation.provenance import machine
from ghnq.finetune import Settings
from ghnq.finetune.build import trainable_network
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.finetune.learner import Learner
from ghnq.finetune.measure import accuracy
from ghnq.memory import keep_freed_memory
from ghnq.models import load_model
from ghnq.prediction import CALIBRATION_IMAGES, CALIBRATION_SEED, Network, WeightSource
from ghnq.prediction.held_out import hold_out
from ghnq.prediction.stored_weights import StoredWeights
from ghnq.quant import QuantScheme
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.runs.row_ledger import RowLedger
from ranking_networks import study

BATCH = 100
RATE, QAT_RATE = 0.1, 0.02
WARM_UP = 0.5
"""Epochs in which the rate rises."""
FALL = 1 / 3
"""Part of the epochs in which the rate falls."""
QAT_EPOCHS = 3.0
SEED = 0
FLOAT32, W4A4 = QuantScheme.parse("float32"), QuantScheme.parse("w4a4")
Rows = list[dict[str, Any]]


class TruthLedger(RowLedger[tuple[str, str], dict[str, Any]]):
    """One row for each network and stage."""

    def key(self, row: dict[str, Any]) -> tuple[str, str]:
        return row["network"], row["stage"]

    def parse(self, value: Mapping[str, Any]) -> dict[str, Any] | None:
        return dict(value) if {"network", "stage", "accuracy"} <= value.keys() else None


@dataclass(frozen=True)
class Recipe:
    """Lengths in epochs of so many steps."""

    epochs: float
    steps: int

    @property
    def total(self) -> int:
        return round(self.epochs * self.steps)

    def fall(self, total: int) -> int:
        """The step at which the rate begins to fall in a training of so many steps."""
        return round((1 - FALL) * total)

    def rate(self, step: int, total: int) -> float:
        """The rate of a step of a training of so many steps, as a part of its peak."""
        if step < WARM_UP * self.steps:
            return (step + 1) / (WARM_UP * self.steps)
        return min(1.0, (total - step) / (total - self.fall(total)))


def main(
    data: Annotated[str, typer.Option(help="Directory or hub id of CIFAR-10.")],
    out: Annotated[Path, typer.Option()] = Path("runs/ranking-truth"),
    images: Annotated[int, typer.Option(help="Training images.")] = 10_000,
    epochs: Annotated[float, typer.Option()] = 15.0,
    test_images: Annotated[int, typer.Option()] = 10_000,
    networks: Annotated[int | None, typer.Option(help="So many of the order; all if absent.")] = None,
    minutes: Annotated[float, typer.Option(help="No network is begun after so many minutes.")] = 60.0,
) -> None:
    """Trains the networks that are missing, in the order of the study."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    whole = load(data)
    dataset = replace(whole, train=hold_out(whole)[0].train.balanced(images, SEED), test=whole.test.first(test_images))
    recipe = Recipe(epochs, images // BATCH)
    fingerprint = {
        "study": "ranking truth", "data_sha256": whole.content_hash, "images": images, "epochs": epochs,
        "qat_epochs": QAT_EPOCHS, "batch": BATCH, "rate": RATE, "qat_rate": QAT_RATE, "test_images": test_images,
        "seed": SEED,
    }  # fmt: skip
    console, end = Console(soft_wrap=True), time.monotonic() + 60 * minutes
    with TruthLedger(out, fingerprint, machine()) as ledger:
        for group, word in study()[:networks]:
            if (word, "w4a4") in ledger or time.monotonic() > end:
                continue
            for row in train(word, dataset, recipe, out, begun=(word, "float") in ledger):
                ledger.add([{"network": word, "class": group, **row}])
                console.print({"network": word, "class": group, **row}, highlight=False)


def train(word: str, dataset: ImageDataset, recipe: Recipe, out: Path, *, begun: bool) -> Iterator[dict[str, Any]]:
    """Yields the stages of a network that are missing: with `begun`, the float weights are there."""
    module = load_model(word, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    file = out / "weights" / f"{word.replace('/', '-').replace(':', '-')}.safetensors"
    if not (begun and file.exists()):
        yield from in_float(module, dataset, recipe, file, skip_rows=begun)
    start = time.process_time()
    learner = learner_of(module, StoredWeights.read(file), dataset, W4A4)
    steps = round(QAT_EPOCHS * recipe.steps)
    skipped = sum(not learner.step(recipe.total + i, QAT_RATE * (1 - i / steps)).finite for i in range(steps))
    seconds = time.process_time() - start
    network = learner.network.deploy()
    yield {
        "stage": "w4a4", "epochs": recipe.epochs + QAT_EPOCHS, "accuracy": measured(network, dataset),
        "not_finite": skipped, "cpu_seconds": round(seconds, 1),
    }  # fmt: skip


def in_float(
    module: nn.Module, dataset: ImageDataset, recipe: Recipe, file: Path, *, skip_rows: bool
) -> Iterator[dict[str, Any]]:
    """Trains in float, and writes the weights; yields the stages `half` and `float`."""
    start = time.process_time()
    learner = learner_of(module, KaimingWeights(SEED), dataset, FLOAT32)
    half, skipped = recipe.total // 2, 0
    for step in range(recipe.total):
        if step == recipe.fall(half) and not skip_rows:
            before, so_far = learner.snapshot(), time.process_time() - start
            for branch in range(step, half):
                learner.step(branch, RATE * recipe.rate(branch, half))
            network = learner.network.float_network()
            yield {"stage": "half", "epochs": recipe.epochs / 2, "accuracy": measured(network, dataset)}
            learner.restore(before)
            start = time.process_time() - so_far
        skipped += not learner.step(step, RATE * recipe.rate(step, recipe.total)).finite
    seconds = time.process_time() - start
    StoredWeights.of(learner.network.float_network(), module, {}).save(file)
    if skip_rows:
        return
    trained = Network(module, StoredWeights.read(file), dataset, learner.network.images)
    accuracies = {str(s): measured(trained.quantized(s), dataset) for s in (FLOAT32, W4A4)}
    yield {
        "stage": "float", "epochs": recipe.epochs, "accuracy": accuracies["float32"], "quantized": accuracies,
        "parameters": trained.graph.num_parameters, "multiply_adds": trained.graph.multiply_adds,
        "not_finite": skipped, "cpu_seconds": round(seconds, 1),
    }  # fmt: skip


def learner_of(module: nn.Module, weights: WeightSource, dataset: ImageDataset, scheme: QuantScheme) -> Learner:
    settings = Settings(batch_size=BATCH, lr=RATE, seed=SEED)
    network = Network(module, weights, dataset, dataset.calibration(CALIBRATION_IMAGES, CALIBRATION_SEED))
    return Learner(trainable_network(network, scheme, "identity"), dataset, settings, None, WorkerGroup())


def measured(network: nn.Module, dataset: ImageDataset) -> float:
    """Returns the accuracy on test images, percent."""
    return round(accuracy(network, dataset, dataset.test), 2)


if __name__ == "__main__":
    typer.run(main)
