"""Share of the hypernetwork's forward and backward in a training step, and networks trained per second; one process.

    python benchmarks/step_share.py recipes/cifar10.yaml --data ../shared/data --set meta_batch=8 --set batch_size=64
    python benchmarks/step_share.py recipes/cifar10.yaml --data ../shared/data --against-float

Whole steps (architectures, images, prediction, networks, gradients, update) and the hypernetwork alone on the same
meta-batch take turns; medians. One thread: a run with several workers is several such processes.

--against-float: quantization-aware steps (the recipe's mix, or MIX where it trains in float) and float steps take turns
on the same networks and images.
"""

from __future__ import annotations

import statistics
import time
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from ghnq.data import load
from ghnq.processor import this_processor
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.training import Recipe, load_recipe
from ghnq.training.recipe import Quantization
from ghnq.training.run.trainer import Trainer

MIX = dict.fromkeys(("w8a8", "w4a8", "w4a4", "w2a2", "mixed"), 1.0)


def hypernetwork_seconds(trainer: Trainer, step: int) -> float:
    """Seconds for prediction and its backward pass on the meta-batch of a step."""
    graphs = trainer.stream.meta_batch_at(step).graphs
    started = time.perf_counter()
    groups = trainer.ghn.decode(trainer.ghn.encode(graphs), graphs, channels_last=True)
    forward = time.perf_counter() - started
    gradients = [torch.ones_like(group) for group in groups]
    started = time.perf_counter()
    torch.autograd.backward(groups, gradients)
    return forward + time.perf_counter() - started


def share(loaded: Recipe, data: str | None, steps: int) -> Table:
    """Steps of the recipe against the hypernetwork alone."""
    trainer = trainer_of(loaded, data)
    whole, alone = [], []
    for step in range(2 * steps):
        taken = step_seconds(trainer)
        hypernetwork = hypernetwork_seconds(trainer, step)
        if step >= steps:
            whole.append(taken)
            alone.append(hypernetwork)
    step_ms, hyper_ms = 1e3 * statistics.median(whole), 1e3 * statistics.median(alone)
    table = Table("step, ms", "hypernetwork, ms", "share", "networks/s")
    rate = 1e3 * loaded.meta_batch / step_ms
    table.add_row(f"{step_ms:.0f}", f"{hyper_ms:.0f}", f"{100 * hyper_ms / step_ms:.1f} %", f"{rate:.1f}")
    return table


def against_float(loaded: Recipe, data: str | None, steps: int) -> Table:
    """Quantization-aware steps against float ones, which go first and second in turns."""
    mix = {scheme: weight for scheme, weight in loaded.quantization.mix.items() if scheme != "float32"} or MIX
    trainers = [
        trainer_of(loaded.model_copy(update={"quantization": Quantization(mix=schemes)}), data)
        for schemes in ({"float32": 1.0}, mix)
    ]
    taken: list[list[float]] = [[], []]
    for step in range(2 * steps):
        for which in (0, 1) if step % 2 else (1, 0):
            seconds = step_seconds(trainers[which])
            if step >= steps:
                taken[which].append(seconds)
    plain, aware = (1e3 * statistics.median(seconds) for seconds in taken)
    ratios = sorted(a / b for b, a in zip(*taken, strict=True))
    table = Table("mix", "float, ms", "quantization-aware, ms", "ratio of medians", "median ratio of steps")
    table.add_row(
        " ".join(mix), f"{plain:.0f}", f"{aware:.0f}", f"{aware / plain:.2f}", f"{statistics.median(ratios):.2f}"
    )
    return table


def trainer_of(loaded: Recipe, data: str | None) -> Trainer:
    return Trainer(loaded, load(data or loaded.data, image_size=loaded.image_size), WorkerGroup())


def step_seconds(trainer: Trainer) -> float:
    started = time.perf_counter()
    trainer.step(fraction_done=0.0, last=False)
    return time.perf_counter() - started


def main(
    recipe: str,
    data: Annotated[str | None, typer.Option()] = None,
    steps: Annotated[int, typer.Option(help="Counted steps, after as many uncounted ones.")] = 12,
    overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
    versus: Annotated[
        bool, typer.Option("--against-float", help="Quantization-aware steps against float ones.")
    ] = False,
) -> None:
    """Prints a table."""
    torch.set_num_threads(1)
    loaded = load_recipe(recipe, overrides or [])
    table = (against_float if versus else share)(loaded, data, steps)
    table.title = f"{recipe}, meta-batch {loaded.meta_batch}, {loaded.batch_size} images, 1 thread, {steps} steps"
    console = Console(width=max(100, Console().width))
    console.print(this_processor().line())
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
