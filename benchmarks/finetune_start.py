"""Is a predicted start ever worse than a fresh one? Accuracy after fine-tuning from both, at several budgets.

python benchmarks/finetune_start.py cifar10 --data DATA --out runs/finetune-start --minutes 60
python benchmarks/finetune_start.py cifar10 --data DATA --out runs/finetune-start --table

Every architecture is trained from predicted and from Kaiming weights, for every budget and seed, at the same learning
rates (`auto` is that of the range test, as in `ghnq finetune`); of these the one that is best on held-out training
images counts, and its accuracy on test images is told. Rows
are appended to rows.jsonl as they are made, short budgets first; a later call goes on with those that are missing.
Rows of predicted weights hold for one checkpoint, which is known by its hash, not by its name.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from ghnq.data import ImageDataset
from ghnq.evaluation.provenance import weights_hash
from ghnq.finetune import Job, Settings, finetune
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.hypernet import GHN
from ghnq.models import load_model
from ghnq.prediction import CALIBRATION_IMAGES, Network, PredictedWeights, WeightSource, dataset_for
from ghnq.quant import QuantScheme

NAMED = Path(__file__).parent / "named.py"
ARCHITECTURES = (
    "convnets/test/8",
    "convnets/val/41",
    "convnets/wide/3",
    "convnets/bnfree/0",
    f"{NAMED}:resnet20",
    f"{NAMED}:mobilenet_v2",
)
STARTS = ("predicted", "kaiming")
ROWS = "rows.jsonl"


@dataclass(frozen=True, order=True)
class Cell:
    """One training of one network; a learning rate of 0 stands for that of the range test."""

    epochs: float
    seed: int
    scheme: str
    architecture: str
    lr: float
    start: str


def split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def main(
    checkpoint: str,
    data: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    architectures: Annotated[str, typer.Option()] = ",".join(ARCHITECTURES),
    schemes: Annotated[str, typer.Option()] = "float32,w4a4",
    epochs: Annotated[str, typer.Option()] = "0.5,1,2,5,10,20",
    rates: Annotated[str, typer.Option()] = "auto",
    seeds: Annotated[str, typer.Option()] = "0,1",
    images: Annotated[int | None, typer.Option(help="Training images; all if absent.")] = None,
    test_images: Annotated[int, typer.Option()] = 2000,
    minutes: Annotated[float, typer.Option(help="No training is begun after so many minutes.")] = 60.0,
    table: Annotated[bool, typer.Option("--table", help="Print the table of the rows that there are.")] = False,
) -> None:
    """Trains what is missing, or prints the table."""
    out.mkdir(parents=True, exist_ok=True)
    ghn = GHN.from_pretrained(checkpoint)
    sha256 = weights_hash(ghn)
    rows = [row for row in read_rows(out / ROWS) if is_of(row, sha256)]
    if table:
        print("".join(markdown(rows)))
        return
    torch.set_num_threads(1)
    dataset = subset(dataset_for(ghn, data), images, test_images)
    done = {key(row) for row in rows}
    cells = sorted(
        Cell(float(budget), int(seed), scheme, architecture, 0.0 if lr == "auto" else float(lr), start)
        for budget, seed, scheme, architecture, lr, start in product(
            split(epochs), split(seeds), split(schemes), split(architectures), split(rates), STARTS
        )
    )
    end = time.monotonic() + 60 * minutes
    for cell in cells:
        settings = {"images": len(dataset.train), "checkpoint": checkpoint, "checkpoint_sha256": sha256}
        if key(asdict(cell) | settings) in done or time.monotonic() > end:
            continue
        row = asdict(cell) | settings | train(cell, ghn, dataset)
        with (out / ROWS).open("a") as file:
            print(json.dumps(row), file=file)
        print(json.dumps(row), flush=True)


def is_of(row: dict[str, Any], sha256: str) -> bool:
    """Returns whether a row belongs to a checkpoint: not to another one of the same name. Random weights have none."""
    return row["start"] == "kaiming" or row.get("checkpoint_sha256") == sha256


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Returns what tells a row from the others of its checkpoint."""
    names = ("epochs", "seed", "scheme", "architecture", "lr", "start", "images")
    return tuple(Path(row[name]).name if name == "architecture" and ".py" in row[name] else row[name] for name in names)


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def subset(dataset: ImageDataset, images: int | None, test_images: int) -> ImageDataset:
    """Returns the data set with fewer images, balanced over classes."""
    train = dataset.train if images is None else dataset.train.first(images)
    return replace(dataset, train=train, test=dataset.test.first(min(test_images, len(dataset.test))))


def train(cell: Cell, ghn: GHN, dataset: ImageDataset) -> dict[str, Any]:
    """Returns accuracies before and after one training, percent, and its seconds."""
    module = load_model(cell.architecture, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    weights: WeightSource = PredictedWeights(ghn) if cell.start == "predicted" else KaimingWeights(cell.seed)
    network = Network(module, weights, dataset, dataset.calibration(CALIBRATION_IMAGES, 0))
    job = Job(
        model=cell.architecture, origin=("init", cell.start), scheme=cell.scheme, scheme_content=cell.scheme,
        data=dataset.name, data_sha256="", teacher=None,
        settings=Settings(epochs=cell.epochs, lr=cell.lr or None, seed=cell.seed),
    )  # fmt: skip
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = finetune(
            network, job, QuantScheme.parse(cell.scheme), out=Path(folder) / "run", console=Console(quiet=True)
        )
    return {
        "before": result.before[cell.scheme],
        "val": result.val,
        "test": result.after[cell.scheme],
        "found_lr": result.lr,
        "rollbacks": result.rollbacks,
        "seconds": round(time.perf_counter() - started, 1),
    }


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of a table: one for each scheme, architecture and budget, means over seeds."""
    yield "| scheme | architecture | images | epochs | predicted | Kaiming | difference |\n"
    yield "|---|---|---|---|---|---|---|\n"
    groups: dict[tuple[Any, ...], dict[str, dict[int, list[dict[str, Any]]]]] = {}
    for row in rows:
        name = row["architecture"].rpartition(":")[2].removeprefix("convnets/")
        group = groups.setdefault((row["scheme"], name, row["images"], row["epochs"]), {})
        group.setdefault(row["start"], {}).setdefault(row["seed"], []).append(row)
    for (scheme, name, images, budget), starts in sorted(groups.items()):
        if set(starts) != set(STARTS):
            continue
        best = {start: {seed: chosen(each) for seed, each in seeds.items()} for start, seeds in starts.items()}
        shared = sorted(best["predicted"].keys() & best["kaiming"].keys())
        if not shared:
            continue
        predicted, kaiming = ([best[start][seed] for seed in shared] for start in STARTS)
        differences = [a - b for a, b in zip(predicted, kaiming, strict=True)]
        error = f" ± {stdev(differences) / math.sqrt(len(differences)):.1f}" if len(differences) > 1 else ""
        yield (
            f"| {scheme} | {name} | {images:,} | {budget:g} | {mean(predicted):.1f} | {mean(kaiming):.1f} | "
            f"{mean(differences):+.1f}{error} |\n"
        )


def chosen(rows: list[dict[str, Any]]) -> float:
    """Returns the accuracy on test images at the rate that is best on held-out images."""
    best = max(rows, key=lambda row: row["val"] if row["val"] is not None else row["test"])
    return float(best["test"])


if __name__ == "__main__":
    typer.run(main)
