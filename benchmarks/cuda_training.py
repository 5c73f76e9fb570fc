"""Utilisation and throughput of a GPU that trains many small networks, of ghnq and of the reference.

    python benchmarks/cuda_training.py --data DATA [--ppuda PATH] [--seconds 6] [--only LABELS] [--json]

Every row is a run of its own, of `recipes/cifar10.yaml` with some keys changed: as many steps as fit into the seconds,
after some uncounted ones. Everything that a step of `ghnq train` does is timed. Rows of `new` networks draw, build and
trace architectures as they come, none twice; rows of known ones train the same members of `train` again and again, as
the reference does, all that has to do with its graphs and modules made before. Utilisation: the share of time in which
any kernel runs, as the driver samples it. `mps` rows are run by processes under NVIDIA's multi-process service, where
it can be started: their kernels run side by side.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from cuda_monitor import service, utilisation
from ghnq.runs.distributed.launch import start_workers
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.training import load_recipe
from ghnq.training.distributed.topology import choose_topology
from references import ghn2_config, load_ghn2
from training_speed import Task, Theirs, eligible_members


@dataclass(frozen=True)
class Row:
    """What a row changes.

    source: another copy of the package. reference: the reference's own steps. known: so many members of
    `train` again and again, instead of architectures as they come.
    """

    label: str
    overrides: tuple[str, ...] = ()
    workers: int = 1
    mps: bool = False
    source: str | None = None
    reference: bool = False
    known: int = 0
    warmup: float = 2.0

    @property
    def group(self) -> tuple[Any, ...]:
        """Rows that have this in common are measured by the same processes: to start them takes longest."""
        return (self.workers, self.mps, self.source, self.reference)


def rows(before: str | None, ppuda: str | None) -> list[Row]:
    many, graphs, new = "meta_batch=64", "cuda_graphs=true", "reuse=1"
    found = [Row("before, 8 known", source=before, known=8)] if before else []
    if ppuda:
        found += [Row("GHN-2, 8 known", ("share_images=true",), reference=True, known=8)]
    found += [
        Row("one process, 8 known", known=8),
        Row("one process, 8 known, graphs", (graphs,), known=8),
        Row("one process, new", (new,)),
        Row("8 processes, mps, 8 known, graphs", (graphs,), 8, mps=True, known=8),
        Row("8 processes, mps, 64 known", (many,), 8, mps=True, known=64, warmup=3),
        Row("8 processes, mps, 64 known, graphs", (many, graphs), 8, mps=True, known=64, warmup=3),
        Row("8 processes, mps, new", (many, new), 8, mps=True, warmup=4),
        Row("16 processes, mps, 64 known, graphs", (many, graphs), 16, mps=True, known=64, warmup=3),
        Row("16 processes, mps, new", (many, new), 16, mps=True, warmup=4),
        Row("8 processes, 64 known, graphs", (many, graphs), 8, known=64, warmup=3),
    ]
    return found


def run_ours(tasks: list[Task], warmups: list[float], seconds: float) -> Iterator[dict[str, float]]:
    """Runs steps of each task in turn for some seconds, with the processes of the first task's recipe."""
    group = start_workers(choose_topology(tasks[0].recipe, None), follow, tasks)
    torch.set_num_threads(1)
    try:
        for task, warmup in zip(tasks, warmups, strict=True):
            with closing(task.trainer(group)) as trainer:
                group.barrier()
                begun = time.perf_counter()
                while time.perf_counter() - begun < warmup or trainer.progress.step < 3:
                    trainer.step(fraction_done=0.0, last=False)
                steps, started, last = 0, time.perf_counter(), False
                with utilisation() as seen:
                    while not last:
                        last = trainer.step(fraction_done=0.0, last=time.perf_counter() - started > seconds).last
                        steps += 1
                    taken = time.perf_counter() - started
            yield measured(steps, task.recipe.meta_batch, taken, seen)
            del trainer
            gc.collect()  # a trainer and its prefetcher refer to each other
            torch.cuda.empty_cache()
    finally:
        group.close()


def follow(group: WorkerGroup, tasks: list[Task]) -> None:
    """The steps of every process but the first."""
    for task in tasks:
        with closing(task.trainer(group)) as trainer:
            group.barrier()
            while not trainer.step(fraction_done=0.0, last=False).last:
                pass
        del trainer
        gc.collect()
        torch.cuda.empty_cache()


def run_theirs(task: Task, ppuda: Path, seconds: float) -> dict[str, float]:
    """The reference's own steps on the same card."""
    config = ghn2_config(task.recipe.hypernet.hidden) | {"max_shape": task.recipe.hypernet.max_shape, "num_classes": 10}
    theirs = Theirs(load_ghn2(ppuda, config), task, "cuda")
    theirs.task = task = Task(task.recipe, task.data, tuple(eligible_members(theirs, len(task.members))))
    begun, number = time.perf_counter(), 0
    while time.perf_counter() - begun < 2 or number < 3:
        theirs.step(number, threads=1)
        number += 1
    first, taken = number, 0.0
    with utilisation() as seen:
        while taken < seconds:  # without the images, which are drawn beside the clock
            taken += theirs.step(number, threads=1)
            number += 1
    return measured(number - first, task.recipe.meta_batch, taken, seen)


def measured(steps: int, meta_batch: int, taken: float, seen: list[float]) -> dict[str, float]:
    busy = sum(seen) / len(seen) if seen else float("nan")
    memory = torch.cuda.mem_get_info()
    return {
        "steps": steps,
        "step_ms": 1e3 * taken / steps,
        "rate": steps * meta_batch / taken,
        "utilisation": busy,
        "memory_gb": (memory[1] - memory[0]) / 1e9,
    }


def work(group: list[Row], recipe: str, data: str, ppuda: str | None, seconds: float) -> None:
    """Measures the rows of a group, in this process and those that it starts; a line for each."""
    tasks = []
    for row in group:
        overrides = ["workers=1", "device=cuda", "schedule.warmup=0", *row.overrides]
        overrides += [f"cuda_workers={row.workers}"] if row.workers > 1 else []
        tasks.append(Task(load_recipe(recipe, overrides), data, tuple(range(row.known))))
    if group[0].reference:
        assert ppuda is not None
        results = iter([run_theirs(tasks[0], Path(ppuda), seconds)])
    else:
        results = run_ours(tasks, [row.warmup for row in group], seconds)
    for row, result in zip(group, results, strict=True):
        print("FIGURES " + json.dumps({"label": row.label, **result}), flush=True)


def main(
    data: Annotated[str, typer.Option()],
    ppuda: Annotated[str | None, typer.Option(help="A copy of github.com/facebookresearch/ppuda.")] = None,
    recipe: Annotated[str, typer.Option()] = "recipes/cifar10.yaml",
    seconds: Annotated[float, typer.Option(min=1, help="That count, of every row.")] = 6.0,
    before: Annotated[str | None, typer.Option(help="Folder with another copy of the package to compare with.")] = None,
    only: Annotated[str, typer.Option(help="Rows with this in their name.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each row instead of the table.")] = False,
    group: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Times every row, groups of them in processes of their own."""
    if group is not None:
        chosen = [
            Row(**{k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}) for one in json.loads(group)
        ]
        work(chosen, recipe, data, ppuda, seconds)
        return
    console = Console(width=max(110, Console().width))
    table = Table("", "ms a step", "networks/s", "utilisation, %", "GB", title=f"{recipe}, {seconds:g} s")
    with service() as own:
        usable = [row for row in rows(before, ppuda) if only in row.label and (own is not None or not row.mps)]
        for _, members in groupby(usable, key=lambda row: row.group):
            chosen = list(members)
            environment = os.environ | (own or {} if chosen[0].mps else {})
            if chosen[0].source:
                environment["PYTHONPATH"] = os.pathsep.join([chosen[0].source, environment.get("PYTHONPATH", "")])
            command = [sys.executable, sys.argv[0], "--data", data, "--recipe", recipe, "--seconds", str(seconds)]
            command += ["--ppuda", ppuda] if ppuda else []
            command += ["--group", json.dumps([asdict(row) for row in chosen])]
            patience = 60 + sum(row.warmup + seconds + 20 for row in chosen)
            for figures in lines(command, environment, [row.label for row in chosen], patience):
                if as_json:
                    print(json.dumps({"device": torch.cuda.get_device_name(), **figures}), flush=True)
                values = [figures[key] for key in ("step_ms", "rate", "utilisation", "memory_gb")]
                table.add_row(figures["label"], *(f"{value:.1f}" for value in values))
    if not as_json:
        console.print(table)


def lines(
    command: list[str], environment: dict[str, str], labels: list[str], patience: float
) -> Iterator[dict[str, Any]]:
    """Yields the figures of a group as they arrive; errors are printed, and the next group is tried."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        timer = threading.Timer(patience, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("FIGURES "):
                yield json.loads(line.removeprefix("FIGURES "))
        timer.cancel()
        if process.wait():
            errors.seek(0)
            print(f"{labels}: exit code {process.returncode}\n{errors.read()[-2000:]}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)
    typer.run(main)
