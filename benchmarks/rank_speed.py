"""What ranking takes: seconds of one core for a candidate, by part, and candidates in a minute on so many cores.

    python benchmarks/rank_speed.py --data ../shared/data --checkpoint cifar10 [--candidates 24]

Random members of `train` at w4a4: built and traced (all that sizes need), predicted, calibrated (statistics of norms,
ranges of activations, on as many training images as are scored, from 64 to 512), and scored on held-out images; at the
numbers of images that rounds of `ghnq rank --images 500` have. Processor time, one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from ghnq.evaluation.provenance import weights_hash
from ghnq.graph import trace
from ghnq.hypernet import GHN
from ghnq.memory import keep_freed_memory
from ghnq.prediction import PredictedWeights, count_correct, dataset_for
from ghnq.processor import this_processor
from ghnq.quant import QuantScheme, prepare
from ghnq.search.candidate_words import read_candidates
from ghnq.search.candidates import Candidate
from ghnq.search.short_finetuning import finetuned
from ghnq.search.sizes import sizes_of
from ghnq.search.subject import Bench, Budget

T = TypeVar("T")
W4A4 = QuantScheme.parse("w4a4")
PARTS = ("trace", "predict", "calibrate", "score", "fine-tune")


def main(
    data: Annotated[str, typer.Option(help="Directory or hub id of CIFAR-10.")],
    checkpoint: Annotated[str, typer.Option()] = "cifar10",
    candidates: Annotated[int, typer.Option()] = 24,
    images: Annotated[str, typer.Option()] = "56,167,500",
    finetuning: Annotated[str, typer.Option(help="Seconds of fine-tuning with each number of images.")] = "0,0,0",
    cores: Annotated[int, typer.Option()] = 2,
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    ghn = GHN.from_pretrained(checkpoint)
    bench = Bench.of(PredictedWeights(ghn), dataset_for(ghn, data))
    members = list(read_candidates(["convnets/train"], n=candidates + 1))
    table = Table("images", "fine-tuning, s", *(f"{part}, s" for part in PARTS), "all, s", f"a minute, {cores} cores")
    for count, seconds in zip(images.split(","), finetuning.split(","), strict=True):
        budget = Budget(int(count), float(seconds))
        totals = dict.fromkeys(PARTS, 0.0)
        measure(members[0], bench, budget, dict(totals))  # what is made once
        for member in members[1:]:
            measure(member, bench, budget, totals)
        means = [totals[part] / candidates for part in PARTS]
        cells = [f"{mean:.3f}" for mean in (*means, sum(means))]
        table.add_row(count, seconds, *cells, f"{60 * cores / sum(means):.0f}")
    Console(width=120).print(table, f"checkpoint {weights_hash(ghn)[:12]}; {this_processor().line()}")


def measure(member: Candidate, bench: Bench, budget: Budget, totals: dict[str, float]) -> None:
    """Adds the seconds of each part."""
    shape, classes = bench.dataset.input_shape, bench.dataset.num_classes
    module = timed(totals, "trace", lambda: member.build(shape, classes))
    timed(totals, "trace", lambda: sizes_of(trace(module, shape), W4A4))
    subject = bench.subject(module, W4A4, budget)
    if budget.seconds:
        timed(totals, "fine-tune", lambda: finetuned(subject))
        return
    network, weights = subject.network, subject.network.weights
    graph = network.graph
    predicted = timed(totals, "predict", lambda: weights.network(module, graph, W4A4))

    def calibrated() -> nn.Module:
        prepared = prepare(
            predicted, network.calibration, standardise=weights.standardise, keep_statistics=weights.keep_statistics
        )
        return prepared.quantize(W4A4)

    quantized = timed(totals, "calibrate", calibrated)
    timed(totals, "score", lambda: count_correct(quantized, bench.dataset, subject.images))


def timed(totals: dict[str, float], part: str, call: Callable[[], T]) -> T:
    start = time.process_time()
    result = call()
    totals[part] += time.process_time() - start
    return result


if __name__ == "__main__":
    typer.run(main)
