"""Share of the hypernetwork's forward and backward in a training step, and networks trained per second; one process.

    python benchmarks/step_share.py recipes/cifar10.yaml --data ../shared/data --set meta_batch=8 --set batch_size=64

Whole steps (architectures, images, prediction, networks, gradients, update) and the hypernetwork alone on the same
meta-batch take turns; medians. One thread: a run with several workers is several such processes.
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
from ghnq.training import load_recipe
from ghnq.training.team import Team
from ghnq.training.trainer import Trainer


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


def main(
    recipe: str,
    data: Annotated[str | None, typer.Option()] = None,
    steps: Annotated[int, typer.Option(help="Counted steps, after as many uncounted ones.")] = 12,
    overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Prints a table."""
    torch.set_num_threads(1)
    loaded = load_recipe(recipe, overrides or [])
    dataset = load(data or loaded.data, image_size=loaded.image_size)
    trainer = Trainer(loaded, dataset, Team())
    whole, alone = [], []
    for step in range(2 * steps):
        started = time.perf_counter()
        trainer.step(fraction_done=0.0, last=False)
        taken = time.perf_counter() - started
        hypernetwork = hypernetwork_seconds(trainer, step)
        if step >= steps:
            whole.append(taken)
            alone.append(hypernetwork)
    step_ms, hyper_ms = 1e3 * statistics.median(whole), 1e3 * statistics.median(alone)
    table = Table(
        title=f"{recipe}, meta-batch {loaded.meta_batch}, {loaded.batch_size} images, 1 thread, {steps} steps"
    )
    for column in ("step, ms", "hypernetwork, ms", "share", "networks/s"):
        table.add_column(column, justify="right")
    table.add_row(
        f"{step_ms:.0f}",
        f"{hyper_ms:.0f}",
        f"{100 * hyper_ms / step_ms:.1f} %",
        f"{1e3 * loaded.meta_batch / step_ms:.1f}",
    )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
