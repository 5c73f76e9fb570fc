"""Transfer to other classes: a predicted body with a solved head, against a Kaiming body with the same head.

    python benchmarks/transfer.py CHECKPOINT --data ../shared/cifar100 --networks convnets/test/2,resnet20
        [--epochs 0,1,5] [--images 5000] [--lr 0.1|auto] [--seeds 0,1] [--out FILE.json]

Networks are of a space or of benchmarks/named.py, with their first and last layer made for the images. Three starts:
`transferred` (`ghnq.transfer`), `kaiming_solved` (random body, norms calibrated on the same images, head solved from
the same images), `kaiming` (random, as networks are trained from scratch). Accuracy on test images, percent, at once
and after training as `ghnq finetune` trains, at one rate for all, or at that which the command takes (`auto`).
Held-out training images are used by none. The seed decides random weights, and the images of each step. Rows in FILE
are not measured again, if checkpoint (by its hash), images, rate and seed are the same; others are kept beside. One
thread.
"""

from __future__ import annotations

import copy
import json
import math
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import torch
import typer
from torch import nn

from ghnq.data import ImageDataset, load
from ghnq.evaluation.provenance import weights_hash
from ghnq.files import write_text
from ghnq.finetune import Settings
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.finetune.learner import Learner
from ghnq.finetune.measure import accuracy
from ghnq.finetune.rate import RangeTest, find_rate, rate_of_predicted
from ghnq.finetune.schedule import one_cycle
from ghnq.finetune.start import rescaled
from ghnq.finetune.statistics import estimate_statistics
from ghnq.finetune.transfer import solve_head, transfer
from ghnq.graph import trace
from ghnq.hypernet import GHN
from ghnq.models import load_model
from ghnq.prediction.held_out import hold_out
from ghnq.quant import QuantScheme, TrainableNetwork, prepare
from ghnq.recorded_names import checkpoint_name
from ghnq.runs.distributed.worker_group import WorkerGroup
from named import NAMED

STARTS = ("transferred", "kaiming_solved", "kaiming")
FLOAT32 = QuantScheme.parse("float32")
Row = dict[str, str | float]


def build(name: str, dataset: ImageDataset) -> nn.Module:
    """Returns a network for the images; named ones get another first and last layer."""
    channels, classes = dataset.input_shape[0], dataset.num_classes
    if name not in NAMED:
        return load_model(name, input_shape=dataset.input_shape, num_classes=classes)
    network = NAMED[name]()
    assert isinstance(network, nn.Sequential)
    first, last = network[0], network[-1]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Linear)
    if channels != first.in_channels:
        network[0] = nn.Conv2d(channels, first.out_channels, 3, first.stride, 1, bias=first.bias is not None)
    network[-1] = nn.Linear(last.in_features, classes)
    return network


def start_of(start: str, module: nn.Module, ghn: GHN, dataset: ImageDataset, seed: int) -> TrainableNetwork:
    """Returns the calibrated network of a start."""
    calibration = dataset.calibration(min(512, len(dataset.train)), 0)
    if start == "transferred":
        prepared = prepare(transfer(module, ghn, dataset), calibration, keep_statistics=True)
        trainable = TrainableNetwork.of(prepared, FLOAT32)
        rescaled(trainable.network, prepared.data_flow.norm_pairs)
        return trainable
    network = KaimingWeights(seed).network(module, trace(module, dataset.input_shape), FLOAT32)
    if start == "kaiming_solved":
        solve_head(network, dataset, standardise=False)
    return TrainableNetwork.of(prepare(network, calibration, standardise=False), FLOAT32)


def learner_of(network: TrainableNetwork, dataset: ImageDataset, seed: int) -> Learner:
    """Returns what trains a network in place."""
    return Learner(network, hold_out(dataset)[0], Settings(seed=seed), None, WorkerGroup())


def train(network: TrainableNetwork, dataset: ImageDataset, epochs: int, peak: float, seed: int) -> None:
    """Trains in place: one cycle over these epochs."""
    settings = Settings(epochs=epochs)
    part = hold_out(dataset)[0]
    learner = learner_of(network, dataset, seed)
    steps = settings.steps(len(part.train))
    for step in range(steps):
        if not learner.step(step, peak * one_cycle(step / steps)).finite:
            raise ArithmeticError(f"the loss is not finite at step {step + 1}, at a rate of up to {peak:.3g}")
    estimate_statistics(learner, steps)


def markdown(rows: list[Row]) -> str:
    """One line for each network and start: means over seeds, with the standard error of seeds and test images."""
    epochs = sorted({int(row["epochs"]) for row in rows})
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        cell = (str(row["network"]), str(row["start"]), int(row["epochs"]))
        found.setdefault(cell, []).append(float(row["accuracy"]))
    images = int(rows[0]["images"])
    lines = ["| network | start | " + " | ".join("at once" if not e else f"{e} epochs" for e in epochs) + " |"]
    lines.append("|---|---|" + "--:|" * len(epochs))
    for network in dict.fromkeys(str(row["network"]) for row in rows):
        for start in STARTS:
            cells = (found.get((network, start, count)) for count in epochs)
            shown = " | ".join("" if cell is None else with_error(cell, images) for cell in cells)
            lines.append(f"| {network} | {start} | {shown} |")
    return "\n".join(lines) + "\n"


def with_error(accuracies: list[float], images: int) -> str:
    """Returns the mean and its standard error: that of the seeds, and that of so many test images."""
    average = mean(accuracies)
    of_seeds = stdev(accuracies) ** 2 / len(accuracies) if len(accuracies) > 1 else 0.0
    return f"{average:.1f} ± {math.sqrt(of_seeds + average * (100 - average) / images):.1f}"


def main(
    checkpoint: str,
    data: Annotated[str, typer.Option(help="Data set of other classes.")],
    networks: Annotated[str, typer.Option(help="Comma-separated.")],
    epochs: Annotated[str, typer.Option(help="Budgets, comma-separated; each is a run of its own.")] = "0,1,5",
    images: Annotated[int, typer.Option(help="Test images, at most.")] = 5000,
    lr: Annotated[str, typer.Option(help="Peak of the rate, or auto.")] = "auto",
    seeds: Annotated[str, typer.Option(help="Comma-separated; weights are predicted alike for all.")] = "0",
    out: Annotated[Path | None, typer.Option(help="Keep the rows here.")] = None,
) -> None:
    """Prints a table."""
    torch.set_num_threads(1)
    ghn, dataset = GHN.from_pretrained(checkpoint), load(data)
    test = dataset.test.first(min(images, len(dataset.test)))
    about: Row = {"data_sha256": dataset.content_hash, "images": len(test)}
    of_checkpoint: Row = {"checkpoint": checkpoint_name(checkpoint), "checkpoint_sha256": weights_hash(ghn)}
    kept: list[Row] = json.loads(out.read_text()) if out is not None and out.exists() else []
    rows: list[Row] = []

    @cache
    def start_network(start: str, name: str, seed: int) -> TrainableNetwork:
        return start_of(start, build(name, dataset), ghn, dataset, seed)

    @cache
    def range_test(start: str, name: str, seed: int) -> RangeTest:
        learner = learner_of(copy.deepcopy(start_network(start, name, seed)), dataset, seed)
        return find_rate(learner, max_seconds=None)

    def peak_rate(start: str, name: str, seed: int, count: int) -> float:
        if lr != "auto":
            return float(lr)
        test = range_test(start, name, seed)
        if start != "transferred":
            return test.lr
        steps = Settings(epochs=count).steps(len(hold_out(dataset)[0].train))
        return rate_of_predicted(steps, Settings.batch_size, test)

    cells = product(map(int, epochs.split(",")), map(int, seeds.split(",")), networks.split(","), STARTS)
    for count, seed, name, start in cells:
        if count == 0 and seed and start == "transferred":  # the same for all seeds
            continue
        rate: Row = {"lr": 0.0 if not count else "auto" if lr == "auto" else float(lr)}
        cell: Row = {"network": name, "start": start, "epochs": count, **rate, "seed": seed, **about}
        cell |= of_checkpoint if start == "transferred" else {}
        if found := [row for row in kept if cell.items() <= ({"seed": 0} | row).items()]:
            rows.append(found[0])
            continue
        network = copy.deepcopy(start_network(start, name, seed))
        if count:
            train(network, dataset, count, peak_rate(start, name, seed, count), seed)
        figure = accuracy(network.float_network(), dataset, test)
        rows.append(cell | {"accuracy": figure})
        kept.append(rows[-1])
        print(rows[-1], flush=True)
        if out is not None:
            write_text(out, json.dumps(kept))
    print(markdown(rows))


if __name__ == "__main__":
    typer.run(main)
