"""The signals of the ranking study, measured on its networks, for `benchmarks/ranking_study.py`.

    python benchmarks/ranking_signals.py --data ../shared/data --checkpoint cifar10 --minutes 30
    cp runs/ranking-signals/rows.jsonl results/ranking/signals/rows.jsonl

Only networks that `results/ranking/truth` has trained are measured. All signals are for w4a4, on the 2,000 training
images that `ghnq rank` holds out (and on the first 500 of them). Measures:

    sizes       parameters and multiply-adds
    random      synflow and naswot, of random weights
    predicted   accuracy and loss of the predicted network, quantized and in float
    finetune-S  the same after S seconds of training through quantization from predicted weights, counted in work
    kaiming-S   and from random weights: the control

A row is kept for each network, measure and checkpoint (known by its hash), so that rows of a better checkpoint can be
added. Seconds are of processor time, of one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from torch import Tensor, nn

from ghnq.errors import GraphError, NotFiniteError
from ghnq.evaluation.provenance import machine, weights_hash
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.hypernet import GHN
from ghnq.memory import keep_freed_memory
from ghnq.models import load_model
from ghnq.prediction import PredictedWeights, dataset_for, logits_of
from ghnq.quant import QuantScheme, prepare
from ghnq.runs.row_ledger import RowLedger
from ghnq.search.short_finetuning import finetuned
from ghnq.search.signals import SIGNALS
from ghnq.search.subject import Bench, Budget, Subject
from ranking_study import FOLDER, read_rows, trained

W4A4 = QuantScheme.parse("w4a4")
IMAGES, FEW = 2000, 500
ROUNDS = ("sizes,random,predicted", "finetune-10,kaiming-10", "finetune-30", "kaiming-30")
"""Cheap measures of all networks come before dear ones of any."""
Values = dict[str, float | None]


class SignalLedger(RowLedger[tuple[str, str, str], dict[str, Any]]):
    """One row for each network, measure and checkpoint; an empty hash where none was used."""

    def key(self, row: dict[str, Any]) -> tuple[str, str, str]:
        return row["network"], row["measure"], row["checkpoint_sha256"]

    def parse(self, value: Mapping[str, Any]) -> dict[str, Any] | None:
        return dict(value) if {"network", "measure", "checkpoint_sha256", "values"} <= value.keys() else None


@dataclass(frozen=True)
class Benches:
    """Predicted and random parameters, on the same images."""

    predicted: Bench
    random: Bench

    def subject(self, measure: str, module: nn.Module) -> Subject:
        kind, _, seconds = measure.partition("-")
        bench = self.random if kind in ("random", "kaiming") else self.predicted
        return bench.subject(module, W4A4, Budget(IMAGES, float(seconds or 0)))


def main(
    data: Annotated[str, typer.Option(help="Directory or hub id of CIFAR-10.")],
    checkpoint: Annotated[str, typer.Option()] = "cifar10",
    out: Annotated[Path, typer.Option()] = Path("runs/ranking-signals"),
    truth: Annotated[Path, typer.Option(help="Rows of ranking_truth.py.")] = FOLDER / "truth" / "rows.jsonl",
    rounds: Annotated[str, typer.Option(help="Measures; those after a / come after all networks.")] = "/".join(ROUNDS),
    minutes: Annotated[float, typer.Option(help="No measurement is begun after so many minutes.")] = 60.0,
) -> None:
    """Measures what is missing, in the order in which the networks were trained."""
    torch.set_num_threads(1)
    keep_freed_memory()
    ghn = GHN.from_pretrained(checkpoint)
    dataset, sha256 = dataset_for(ghn, data), weights_hash(ghn)
    benches = Benches(Bench.of(PredictedWeights(ghn), dataset), Bench.of(KaimingWeights(0), dataset))
    fingerprint = {"study": "ranking signals", "data_sha256": dataset.content_hash, "scheme": "w4a4", "images": IMAGES}
    console, end = Console(soft_wrap=True), time.monotonic() + 60 * minutes
    with SignalLedger(out, fingerprint, machine()) as ledger:
        words = list(trained(read_rows(truth)))
        for measure, word in ((m, w) for each in rounds.split("/") for w in words for m in each.split(",")):
            used = sha256 if measure.partition("-")[0] in ("predicted", "finetune") else ""
            if (word, measure, used) in ledger or time.monotonic() > end:
                continue
            module = load_model(word, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
            start = time.process_time()
            values = MEASURES[measure.partition("-")[0]](benches.subject(measure, module))
            row = {
                "network": word, "measure": measure, "checkpoint_sha256": used, "values": values,
                "cpu_seconds": round(time.process_time() - start, 2),
            }  # fmt: skip
            ledger.add([row])
            console.print(row, highlight=False)


def sizes(subject: Subject) -> Values:
    return {"params": SIGNALS["params"].measure(subject), "macs": SIGNALS["macs"].measure(subject)}


def random(subject: Subject) -> Values:
    """Returns what needs random weights; None where a network has no ReLU."""
    try:
        naswot = SIGNALS["naswot"].measure(subject)
    except GraphError:
        naswot = None
    return {"synflow": SIGNALS["synflow"].measure(subject), "naswot": naswot}


def predicted(subject: Subject) -> Values:
    quantized = of_network(subject, lambda: subject.network.quantized(W4A4))
    in_float = of_network(subject, lambda: subject.network.quantized(QuantScheme.parse("float32")))
    return quantized | {f"float_{name}": value for name, value in in_float.items()}


def after_training(subject: Subject) -> Values:
    network = finetuned(subject)
    if network is None:
        return of_logits(None, subject)
    prepared = prepare(
        network, subject.network.calibration, standardise=False, keep_statistics=True, trained_through="w4a4"
    )
    return of_network(subject, lambda: prepared.quantize(W4A4))


def of_network(subject: Subject, make: Callable[[], nn.Module]) -> Values:
    try:
        return of_logits(logits_of(make(), subject.normalised), subject)
    except NotFiniteError:
        return of_logits(None, subject)


def of_logits(logits: Tensor | None, subject: Subject) -> Values:
    """Returns accuracy in percent and minus the loss in nats, on all images and on few."""
    found: Values = {}
    for name, count in (("", IMAGES), (f"_{FEW}", FEW)):
        labels = subject.images.labels[:count]
        few = None if logits is None else logits[:count].double()
        found[f"accuracy{name}"] = None if few is None else 100 * float((few.argmax(1) == labels).double().mean())
        found[f"loss{name}"] = None if few is None else -float(F.cross_entropy(few, labels))
    return found


MEASURES: Mapping[str, Callable[[Subject], Values]] = {
    "sizes": sizes,
    "random": random,
    "predicted": predicted,
    "finetune": after_training,
    "kaiming": after_training,
}

if __name__ == "__main__":
    typer.run(main)
