"""Claim: on two CPU cores, three times as many networks are trained per second as by GHN-2's reference.

    python benchmarks/training_speed.py --ppuda PATH [--data DATA] [--networks 24] [--rounds 3] [--json]

Each side makes its own training step: the reference `Trainer.update` of its code, ghnq the step of `ghnq train`. Both
train the same networks on the same images with hypernetworks of the same width and the same largest weight, Adam and
the same clip. Two cores are used as each is meant to: the reference is one process of two threads, ghnq two processes
of one thread each; one core against one core is timed as well. All four take turns, step by step, in one run.

The networks are the first of the split `train` that the reference takes: its decoder refuses widths below half of the
largest that do not divide it, such as 20. All their parameters must come from its prediction, or they are not taken.
Modules, and graphs of single networks, are made before the clock starts, as the reference makes them in workers. What
is on ghnq's clock alone: putting the graphs of a step side by side, and drawing and augmenting the images.
"""

from __future__ import annotations

import importlib
import json
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from ghnq.data import ImageDataset, load
from ghnq.processor import this_processor
from ghnq.runs.distributed.launch import start_workers
from ghnq.runs.distributed.topology import Topology
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.spaces import convnets
from ghnq.training import Recipe, load_recipe
from ghnq.training.networks.architecture_stream import ArchitectureStream
from ghnq.training.run.trainer import Trainer
from references import Reference, ghn2_config, load_ghn2, quiet


class Members(ArchitectureStream):
    """Meta-batches of these members of `train`, in turns; each is built and traced once."""

    members: tuple[int, ...]

    def indices(self, step: int) -> tuple[int, ...]:
        first = step * self.size
        return tuple(self.members[place % len(self.members)] for place in range(first, first + self.size))


@dataclass(frozen=True)
class Task:
    """What every process of ghnq's side needs to make the same steps; without members: architectures as they come."""

    recipe: Recipe
    data: str
    members: tuple[int, ...]

    def dataset(self) -> ImageDataset:
        return load(self.data, image_size=self.recipe.image_size or 32)

    def trainer(self, group: WorkerGroup) -> Trainer:
        trainer = Trainer(self.recipe, self.dataset(), group)
        if not self.members:
            return trainer
        trainer.stream.__class__ = Members
        trainer.stream.members = self.members  # type: ignore[attr-defined]
        trainer.stream.reuse = len(self.members)  # none is forgotten
        return trainer


class Ours:
    """Steps of one or two processes."""

    def __init__(self, task: Task, group: WorkerGroup) -> None:
        self.group, self.trainer = group, task.trainer(group)

    def step(self, number: int, *, last: bool = False) -> float:
        """Seconds of a step; raises RuntimeError where there was nothing to learn."""
        torch.set_num_threads(1)
        self.trainer.progress.step = number
        self.group.barrier()
        started = time.perf_counter()
        report = self.trainer.step(fraction_done=0.0, last=last)
        seconds = time.perf_counter() - started
        if not report.gradient_norm > 0:
            raise RuntimeError(f"ghnq: the gradient of step {number} has norm {report.gradient_norm}")
        return seconds

    def learning(self) -> str:
        return _learning(self.trainer.ghn)


def follow(group: WorkerGroup, task: Task) -> None:
    """The second process: a step whenever the first makes one."""
    trainer = task.trainer(group)
    for number in count():
        trainer.progress.step = number
        group.barrier()
        if trainer.step(fraction_done=0.0, last=False).last:
            break


class Theirs:
    """Steps of the reference, on graphs and modules made before."""

    def __init__(self, reference: Reference, task: Task, device: str = "cpu") -> None:
        self.reference, self.task, self.near, self.device = reference, task, task.dataset(), torch.device(device)
        self.ghn = reference.hypernetwork.train().to(self.device)
        self.made: dict[int, tuple[nn.Module, Any, Any]] = {}
        with quiet():
            trainer = importlib.import_module("ppuda.utils.trainer").Trainer
            o = task.recipe.optimizer
            adam = torch.optim.Adam(self.ghn.parameters(), lr=o.lr, weight_decay=o.weight_decay)
            self.trainer = trainer(adam, self.near.num_classes, False, 1, grad_clip=o.clip, device=self.device)

    def take(self, index: int) -> bool:
        """Whether all parameters of a member of `train` are predicted; then it is ready to be trained."""
        shape, classes = self.near.input_shape, self.near.num_classes
        network = convnets.build(
            convnets.spec("train", index), in_channels=shape[0], num_classes=classes, running_statistics=False
        ).train()
        self.made[index] = network, *_their_graph(self.reference, network, shape)
        sizes = {name: parameter.shape for name, parameter in network.named_parameters()}
        try:
            with quiet(), torch.no_grad():
                self.ghn([network], self._batch((index,)))
        except (RuntimeError, AssertionError):
            return False
        found = {f"{path}.{key}": p for path, m in network.named_modules() for key, p in m._parameters.items()}
        return all(not isinstance(found[name], nn.Parameter) and found[name].shape == sizes[name] for name in sizes)

    def step(self, number: int, *, threads: int) -> float:
        """Seconds of a step; raises RuntimeError where the loss is not finite."""
        recipe = self.task.recipe
        first = number * recipe.meta_batch
        members = [self.task.members[p % len(self.task.members)] for p in range(first, first + recipe.meta_batch)]
        images, labels = self.near.train_batch(number, recipe.batch_size, recipe.seed, augment=recipe.augment)
        batch = self._batch(tuple(members))
        torch.set_num_threads(threads)
        with quiet():
            started = time.perf_counter()
            loss = self.trainer.update([self.made[i][0] for i in members], images, labels, ghn=self.ghn, graphs=batch)
            seconds = time.perf_counter() - started
        if not bool(loss.isfinite()):
            raise RuntimeError(f"reference: the loss of step {number} is {float(loss)}")
        return seconds

    def learning(self) -> str:
        return _learning(self.ghn)

    def _batch(self, members: tuple[int, ...]) -> Any:
        """Their batch of graphs; the tables of modules are copied, because a step uses them up."""
        for network, _, layered in (self.made[i] for i in members):
            network.__dict__["_layered_modules"] = [dict(cell) for cell in layered]
        batch = self.reference.graphs.GraphBatch([self.made[i][1] for i in members])
        batch.to_device(self.device)
        return batch


def _their_graph(reference: Reference, network: nn.Module, input_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Their graph and table of modules; the network gets the attributes that they read (cells where it has `cells`)."""
    network.expected_input_sz = input_shape  # type: ignore[assignment]
    cells = getattr(network, "cells", None)
    if cells is not None:
        network._n_cells = len(cells)  # type: ignore[assignment]
        for number, cell in enumerate(cells):
            cell._cell_ind = number
    with quiet():
        graph = reference.graphs.Graph(network, ve_cutoff=50)
        layered = importlib.import_module("ppuda.deepnets1m.net").named_layered_modules(network)
    return graph, layered


def _learning(ghn: nn.Module) -> str:
    """How many parameter tensors the last step gave a gradient other than zero."""
    gradients = [p.grad for p in ghn.parameters()]
    reached = sum(g is not None and bool(g.isfinite().all()) and bool(g.any()) for g in gradients)
    return f"{reached} of {len(gradients)}"


@dataclass(frozen=True)
class Row:
    """cores: what both used. Medians in ms; networks per second; how many times as many, of the medians and by step."""

    cores: int
    reference_ms: float
    ours_ms: float
    reference_rate: float
    ours_rate: float
    ratio: float
    lowest: float
    highest: float


def _row(cores: int, theirs: list[float], ours: list[float], networks: int) -> Row:
    their_ms, our_ms = 1e3 * statistics.median(theirs), 1e3 * statistics.median(ours)
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    rates = 1e3 * networks / their_ms, 1e3 * networks / our_ms
    return Row(cores, their_ms, our_ms, *rates, their_ms / our_ms, min(ratios), max(ratios))


def eligible_members(theirs: Theirs, networks: int) -> Iterator[int]:
    """The first members of `train` that the reference takes."""
    return islice((index for index in count() if theirs.take(index)), networks)


def main(
    ppuda: Annotated[Path, typer.Option(help="A copy of github.com/facebookresearch/ppuda.")],
    recipe: Annotated[
        str, typer.Option(help="Whose meta-batch, batch and hypernetwork both have.")
    ] = "recipes/cifar10.yaml",
    data: Annotated[str, typer.Option()] = "digits",
    networks: Annotated[int, typer.Option(min=1, help="Members of `train`, in turns.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="How often all are counted, after one uncounted.")] = 3,
    overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of the table.")] = False,
) -> None:
    """Times both, on two cores and on one."""
    torch.manual_seed(0)
    fixed = ["share_images=true", "prefetch=0", "device=cpu", "workers=1", "schedule.warmup=0"]
    loaded = load_recipe(recipe, [*(overrides or []), *fixed])
    config = ghn2_config(loaded.hypernet.hidden) | {"max_shape": loaded.hypernet.max_shape}
    task = Task(loaded, data, ())
    config["num_classes"] = task.dataset().num_classes
    theirs = Theirs(load_ghn2(ppuda, config), task)
    members = tuple(eligible_members(theirs, -(-networks // loaded.meta_batch) * loaded.meta_batch))
    theirs.task = task = Task(loaded, data, members)
    group = start_workers(Topology(world_size=2, local_world_size=2), follow, task)
    try:
        pair, single = Ours(task, group), Ours(task, WorkerGroup())
        with closing(pair.trainer), closing(single.trainer):
            turns = len(members) // loaded.meta_batch
            steps = turns * (1 + rounds)
            times: list[tuple[float, ...]] = []
            for number in range(steps):
                both = theirs.step(number, threads=2), pair.step(number, last=number + 1 == steps)
                times.append((*both, theirs.step(number, threads=1), single.step(number)))
    finally:
        group.close()
    counted = [list(column) for column in zip(*times[turns:], strict=True)]
    rows = [_row(2, *counted[:2], loaded.meta_batch), _row(1, *counted[2:], loaded.meta_batch)]
    about = {
        "cpu": this_processor().line(),
        "torch": torch.__version__,
        "meta_batch": loaded.meta_batch,
        "batch_size": loaded.batch_size,
        "image": list(theirs.near.input_shape),
        "hidden": loaded.hypernet.hidden,
        "max_shape": list(loaded.hypernet.max_shape),
        "networks": len(members),
        "tried": max(members) + 1,
        "steps": len(times) - turns,
        "gradients": {"reference": theirs.learning(), "ghnq": single.learning()},
    }
    if as_json:
        print(json.dumps({**about, "members": members, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        show(about, rows)


def show(about: dict[str, Any], rows: list[Row]) -> None:
    console = Console(width=max(110, Console().width))
    console.print(f"{about['cpu']}; torch {about['torch']}")
    console.print(
        f"{about['networks']} of the first {about['tried']} networks of `train`, meta-batch {about['meta_batch']}, "
        f"{about['batch_size']} images of {about['image']}; hidden {about['hidden']}, largest weight "
        f"{about['max_shape']}. Parameters of the hypernetworks with a gradient: {about['gradients']}"
    )
    table = Table(title=f"a training step, median of {about['steps']}")
    for column in (
        "cores",
        "GHN-2, ms",
        "ghnq, ms",
        "GHN-2, networks/s",
        "ghnq, networks/s",
        "ratio",
        "of single steps",
    ):
        table.add_column(column, justify="right")
    for r in rows:
        figures = [f"{x:.0f}" for x in (r.cores, r.reference_ms, r.ours_ms)]
        figures += [f"{r.reference_rate:.1f}", f"{r.ours_rate:.1f}", f"{r.ratio:.1f}"]
        table.add_row(*figures, f"{r.lowest:.1f} to {r.highest:.1f}")
    console.print(table)


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)  # of torch.cuda.amp, which the reference enters
    typer.run(main)
