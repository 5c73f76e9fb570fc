"""Is a predicted start ever worse than a fresh one? Accuracy after fine-tuning from both, at several budgets.

python benchmarks/finetune_start.py cifar10 --data DATA --images 10000 --out runs/finetune-start --minutes 60
python benchmarks/finetune_start.py cifar10 --data DATA --out runs/finetune-start --table

Every architecture is trained from predicted and from random weights, for every budget and seed, as `ghnq finetune`
trains (tests/test_benchmark_rows.py): the same steps, the same schedule, the same learning rate. Rows
are appended to rows.jsonl as they are made, short budgets first; a later call goes on with those that are missing. Rows
of predicted weights hold for one checkpoint, which is known by its hash, not by its name. One thread.

Starts: `predicted` (for the scheme that is trained through), `predicted_float32` (for float32 whatever the scheme),
`predicted_as_is` (filters not rescaled), `kaiming`. Rates: a number, `auto` (that of `ghnq finetune`), `range_test`
(from these weights), `kaiming` (the range test from random weights of the seed). Of several rates, seeds after the
first train only at the one that is best with the first, on held-out images. A budget of 0 epochs is the network before
training.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from ghnq.data import ImageDataset
from ghnq.evaluation.provenance import weights_hash
from ghnq.finetune import Settings
from ghnq.finetune.build import trainable_network
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.finetune.learner import Learner, Snapshot
from ghnq.finetune.measure import accuracy
from ghnq.finetune.rate import find_rate, rate_of_predicted
from ghnq.finetune.schedule import one_cycle
from ghnq.finetune.statistics import estimate_statistics
from ghnq.graph import ArchGraph
from ghnq.hypernet import GHN
from ghnq.models import load_model
from ghnq.prediction import CALIBRATION_IMAGES, Network, PredictedWeights, WeightSource, dataset_for
from ghnq.prediction.held_out import hold_out
from ghnq.quant import QuantScheme, prepare
from ghnq.recorded_names import checkpoint_name
from ghnq.runs.distributed.worker_group import WorkerGroup
from start_tables import Row, best_rate, short, tables

NAMED = Path(__file__).parent / "named.py"
ARCHITECTURES = (
    "convnets/test/203",
    "convnets/val/115",
    "convnets/bnfree/24",
    f"{NAMED}:mobilenet_v1_quarter",
    "convnets/wide/34",
    f"{NAMED}:resnet8",
)
ROWS = "rows.jsonl"
FLOAT32 = QuantScheme.parse("float32")


class PredictedForFloat32(PredictedWeights):
    """Parameters predicted for float32, whatever the network will be quantized to."""

    def network(self, module: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> nn.Module:
        """Returns a copy of the module with predicted parameters."""
        return super().network(module, graph, FLOAT32)


@dataclass(frozen=True, order=True)
class Cell:
    """One training of one network."""

    epochs: float
    seed: int
    scheme: str
    architecture: str
    start: str
    rate: str


class Trainings:
    """Trains networks on a data set; weights and range tests are made once for all budgets."""

    def __init__(self, ghn: GHN, dataset: ImageDataset) -> None:
        self.ghn, self.dataset = ghn, dataset
        self.train_set, self.held_out = hold_out(dataset)
        self.calibration = dataset.calibration(min(CALIBRATION_IMAGES, len(dataset.train)), 0)
        self.batch_size = min(Settings.batch_size, len(self.train_set.train))
        self.ready = lru_cache(maxsize=64)(self._ready)
        self.found_rate = lru_cache(maxsize=None)(self._found_rate)

    def row(self, cell: Cell) -> Row:
        """Returns accuracies after one training, percent, and its seconds."""
        learner, initial = self.ready(cell.architecture, cell.scheme, cell.start, cell.seed)
        settings = Settings(epochs=cell.epochs or None, batch_size=self.batch_size)
        steps = settings.steps(len(self.train_set.train)) if cell.epochs else 0
        lr = self._rate(cell, steps) if steps else 0.0
        learner.restore(initial)
        started = time.perf_counter()
        for step in range(steps):
            report = learner.step(step, lr * one_cycle(step / steps))
            if not report.finite:
                raise ArithmeticError(f"{cell}: the loss is not finite at step {step + 1}")
        seconds = time.perf_counter() - started
        if steps:
            estimate_statistics(learner, steps)
        return {"found_lr": lr, "seconds": round(seconds, 1), **self._measured(learner, cell.scheme)}

    def _rate(self, cell: Cell, steps: int) -> float:
        if cell.rate == "auto" and cell.start in ("predicted", "predicted_float32"):
            return rate_of_predicted(steps, self.batch_size)
        if cell.rate in ("auto", "range_test", "kaiming"):
            start = "kaiming" if cell.rate == "kaiming" else cell.start
            return self.found_rate(cell.architecture, cell.scheme, start, cell.seed)
        return float(cell.rate)

    def _found_rate(self, architecture: str, scheme: str, start: str, seed: int) -> float:
        learner, initial = self.ready(architecture, scheme, start, seed)
        learner.restore(initial)
        return find_rate(learner, max_seconds=None).lr

    def _ready(self, architecture: str, scheme: str, start: str, seed: int) -> tuple[Learner, Snapshot]:
        dataset = self.dataset
        module = load_model(architecture, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
        network = Network(module, self._weights(start, seed), dataset, self.calibration)
        trainable = trainable_network(
            network, QuantScheme.parse(scheme), "identity" if start == "predicted_as_is" else Settings.start
        )
        learner = Learner(
            trainable, self.train_set, Settings(batch_size=self.batch_size, seed=seed), None, WorkerGroup()
        )
        return learner, learner.snapshot()

    def _weights(self, start: str, seed: int) -> WeightSource:
        if start == "kaiming":
            return KaimingWeights(seed)
        return PredictedForFloat32(self.ghn) if start == "predicted_float32" else PredictedWeights(self.ghn)

    def _measured(self, learner: Learner, scheme: str) -> Row:
        prepared = prepare(
            learner.network.float_network(), self.calibration,
            standardise=False, keep_statistics=True, trained_through=scheme,
        )  # fmt: skip
        deployed = prepared.quantize(QuantScheme.parse(scheme))
        images = {"val": self.held_out, "test": self.dataset.test}
        return {name: None if part is None else accuracy(deployed, self.dataset, part) for name, part in images.items()}


def main(
    checkpoint: str,
    data: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    architectures: Annotated[str, typer.Option()] = ",".join(ARCHITECTURES),
    schemes: Annotated[str, typer.Option()] = "float32,w4a4",
    epochs: Annotated[str, typer.Option()] = "0.5,1,2,5,10,20",
    starts: Annotated[str, typer.Option()] = "predicted,kaiming",
    rates: Annotated[str, typer.Option()] = "auto",
    seeds: Annotated[str, typer.Option()] = "0,1",
    images: Annotated[int | None, typer.Option(help="Training images; all if absent.")] = None,
    test_images: Annotated[int, typer.Option()] = 5000,
    minutes: Annotated[float, typer.Option(help="No training is begun after so many minutes.")] = 60.0,
    table: Annotated[bool, typer.Option("--table", help="Print the tables of the rows that there are.")] = False,
    sha256: Annotated[str, typer.Option(help="With --table: rows of the checkpoint whose hash begins so.")] = "",
) -> None:
    """Trains what is missing, or prints the tables."""
    out.mkdir(parents=True, exist_ok=True)
    ghn = GHN.from_pretrained(checkpoint)
    own_hash = weights_hash(ghn)
    rows = [row for row in read_rows(out / ROWS) if is_of(row, sha256 or own_hash)]
    if table:
        shown = [row for row in rows if row["rate"] in split(rates) and images in (None, row["images"])]
        for start in split(starts):
            if start != "kaiming":
                print("\n".join(tables(shown, start)))
        return
    torch.set_num_threads(1)
    trainings = Trainings(ghn, subset(dataset_for(ghn, data), images, test_images))
    settings: Row = {"images": len(trainings.dataset.train), "test_images": len(trainings.dataset.test)}
    of_checkpoint: Row = {"checkpoint": checkpoint_name(checkpoint), "checkpoint_sha256": own_hash}
    done = {key(row): row for row in rows}
    cells = sorted(
        Cell(float(budget), int(seed), scheme, architecture, start, rate)
        for budget, seed, scheme, architecture, start, rate in product(
            *(split(each) for each in (epochs, seeds, schemes, architectures, starts, rates))
        )
        if not (start == rate == "kaiming")  # which is auto
    )
    end = time.monotonic() + 60 * minutes
    for cell in cells:
        row = asdict(cell) | settings | ({} if cell.start == "kaiming" else of_checkpoint)
        if key(row) in done or time.monotonic() > end:
            continue
        others = [done.get(key(row | {"rate": rate, "seed": cells[0].seed})) for rate in split(rates)]
        if cell.seed > cells[0].seed and best_rate(filter(None, others)) != cell.rate:
            continue
        row |= trainings.row(cell)
        done[key(row)] = row
        with (out / ROWS).open("a") as file:
            print(json.dumps(row), file=file)
        print(json.dumps(row), flush=True)


def split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def is_of(row: Row, sha256: str) -> bool:
    """Returns whether a row belongs to a checkpoint: not to another one of the same name. Random weights have none."""
    return row["start"] == "kaiming" or str(row.get("checkpoint_sha256")).startswith(sha256)


def key(row: Row) -> tuple[Any, ...]:
    """Returns what tells a row from the others of its checkpoint."""
    names = ("epochs", "seed", "scheme", "start", "rate", "images", "test_images")
    return (short(row["architecture"]), *(row[name] for name in names))


def read_rows(file: Path) -> list[Row]:
    """Returns the rows of a file. Earlier ones have a number as rate, 0 for the range test, and 2,000 test images."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [
        {"test_images": 2000, "rate": "auto" if not row.get("lr") else f"{row['lr']:g}"} | row for row in rows
    ]  # fmt: skip


def subset(dataset: ImageDataset, images: int | None, test_images: int) -> ImageDataset:
    """Returns the data set with fewer images, balanced over classes."""
    train = dataset.train if images is None else dataset.train.first(images)
    return replace(dataset, train=train, test=dataset.test.first(min(test_images, len(dataset.test))))


if __name__ == "__main__":
    typer.run(main)
