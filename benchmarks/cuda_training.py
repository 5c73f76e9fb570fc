"""What keeps a GPU busy that trains many small networks, and how many networks a second the reference trains there.

    python benchmarks/cuda_training.py --data DATA [--ppuda PATH] [--seconds 6] [--only WORD] [--json]

Every row is a run of its own, of `recipes/cifar10.yaml` with some keys changed: as many steps as fit into the seconds,
after some uncounted ones. All that a step of `ghnq train` does is on the clock: architectures are drawn, built and
traced as they come. Utilisation: the share of time in which any kernel runs, as the driver samples it. `mps` rows are
run by processes under NVIDIA's multi-process service, where it can be started: their kernels run side by side.

The reference trains 24 members of `train` in turns, all that has to do with graphs and modules made before.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from ghnq.training import load_recipe, step
from ghnq.training.launch import gather
from ghnq.training.place import choose_place
from ghnq.training.team import Team
from references import ghn2_config, load_ghn2
from training_speed import Task, Theirs, _members

WARMUP = 2.5
"""Seconds that are not counted: memory is found, algorithms chosen, and graphs recorded."""


@dataclass(frozen=True)
class Row:
    """What a row changes. source: another copy of the package, to compare with. layout: where channels lie last."""

    label: str
    overrides: tuple[str, ...] = ()
    mps: bool = False
    layout: str = "NHWC"
    source: str | None = None
    reference: int = 0


def rows(before: str | None, ppuda: str | None) -> list[Row]:
    many, graphs, eight, sixteen = (
        "meta_batch=64",
        ("cuda_graphs=true", "reuse=16"),
        "cuda_workers=8",
        "cuda_workers=16",
    )
    found = []
    if before:
        found += [Row("before", source=before), Row("before, meta-batch 64", (many,), source=before)]
    found += [
        Row("one process"),
        Row("one process, NCHW", layout="NCHW"),
        Row("one process, meta-batch 64", (many,)),
        Row("one process, meta-batch 64, graphs", (many, *graphs)),
        Row("8 processes", (many, eight)),
        Row("8 processes, graphs", (many, eight, *graphs)),
        Row("16 processes", (many, sixteen)),
        Row("8 processes, mps", (many, eight), mps=True),
        Row("8 processes, mps, graphs", (many, eight, *graphs), mps=True),
        Row("16 processes, mps", (many, sixteen), mps=True),
        Row("16 processes, mps, graphs", (many, sixteen, *graphs), mps=True),
        Row("16 processes, mps, 128 images", (many, sixteen, "batch_size=128"), mps=True),
        Row("16 processes, mps, bf16", (many, sixteen, "precision=bf16"), mps=True),
    ]
    if ppuda:
        found[2:2] = [Row("GHN-2, meta-batch 8", reference=8), Row("GHN-2, meta-batch 24", reference=24)]
    return found


def run_ours(row: Row, task: Task, seconds: float, layout: str) -> dict[str, float]:
    """Steps for some seconds by the processes that the recipe asks for."""
    place = choose_place(task.recipe, None)
    team = gather(place, follow, task, layout)
    with_layout(layout)
    torch.set_num_threads(1)
    try:
        with closing(task.trainer(team) if task.members else plain(task, team)) as trainer:
            team.wait_for_all()
            begun = time.perf_counter()
            while time.perf_counter() - begun < WARMUP or trainer.progress.step < 3:
                trainer.step(fraction_done=0.0, last=False)
            steps, started = 0, time.perf_counter()
            with utilisation() as seen:
                while time.perf_counter() - started < seconds:
                    report = trainer.step(fraction_done=0.0, last=time.perf_counter() - started > 0.9 * seconds)
                    steps += 1
                    if report.last:
                        break
            taken = time.perf_counter() - started
    finally:
        team.leave()
    return measured(steps, task.recipe.meta_batch, taken, seen)


def plain(task: Task, team: Team) -> Any:
    from ghnq.training.trainer import Trainer

    return Trainer(task.recipe, task.dataset(), team)


def with_layout(layout: str) -> None:
    if hasattr(step, "CHANNELS_LAST") and layout == "NCHW":
        step.CHANNELS_LAST = {"cpu"}


def follow(team: Team, task: Task, layout: str) -> None:
    """What every process but the first does."""
    with_layout(layout)
    with closing(plain(task, team)) as trainer:
        team.wait_for_all()
        while not trainer.step(fraction_done=0.0, last=False).last:
            pass


def run_theirs(task: Task, ppuda: Path, seconds: float) -> dict[str, float]:
    """The reference's own steps on the same card."""
    config = ghn2_config(task.recipe.hypernet.hidden) | {"max_shape": task.recipe.hypernet.max_shape, "num_classes": 10}
    theirs = Theirs(load_ghn2(ppuda, config), task, "cuda")
    theirs.task = task = Task(task.recipe, task.data, tuple(_members(theirs, 24)))
    begun, number = time.perf_counter(), 0
    while time.perf_counter() - begun < WARMUP or number < 3:
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


@contextlib.contextmanager
def utilisation() -> Iterator[list[float]]:
    """Percent of time in which the card is busy, sampled meanwhile; filled when the block ends."""
    words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    found: list[float] = []
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield found
    finally:
        process.terminate()
        lines = (process.communicate()[0] or "").split("\n")
        found += [float(line) for line in lines[3:] if line.strip().isdigit()]  # the first ones are of before


@contextlib.contextmanager
def service() -> Iterator[dict[str, str] | None]:
    """The environment of processes that share the card through NVIDIA's service; None where it cannot be started."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        try:
            subprocess.run(["nvidia-cuda-mps-control", "-d"], env=os.environ | own, check=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"no multi-process service: {error}", file=sys.stderr)
            yield None
            return
        try:
            yield own
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], env=os.environ | own, input="quit\n", text=True, timeout=20)


def work(row: Row, recipe: str, data: str, ppuda: str | None, seconds: float) -> dict[str, float]:
    """A row, in this process."""
    meta_batch = (f"meta_batch={row.reference}", "share_images=true", "workers=1") if row.reference else ()
    loaded = load_recipe(recipe, ["workers=1", "device=cuda", "schedule.warmup=0", *row.overrides, *meta_batch])
    task = Task(loaded, data, ())
    if row.reference:
        assert ppuda is not None
        return run_theirs(task, Path(ppuda), seconds)
    return run_ours(row, task, seconds, row.layout)


def main(
    data: Annotated[str, typer.Option()],
    ppuda: Annotated[str | None, typer.Option(help="A copy of github.com/facebookresearch/ppuda.")] = None,
    recipe: Annotated[str, typer.Option()] = "recipes/cifar10.yaml",
    seconds: Annotated[float, typer.Option(min=1, help="That count, of every row.")] = 6.0,
    before: Annotated[str | None, typer.Option(help="Folder with another copy of the package to compare with.")] = None,
    only: Annotated[str, typer.Option(help="Rows with this in their name.")] = "",
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
    out: Annotated[Path | None, typer.Option(help="File for the figures, a line of JSON for each row.")] = None,
) -> None:
    """Times every row in processes of its own."""
    if one is not None:
        row = Row(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(one).items()})
        print("FIGURES " + json.dumps(work(row, recipe, data, ppuda, seconds)), flush=True)
        return
    console = Console(width=max(110, Console().width))
    table = Table("", "ms a step", "networks/s", "utilisation, %", "GB", title=f"{recipe}, {seconds:g} s")
    with service() as own:
        for row in rows(before, ppuda):
            if only not in row.label or (row.mps and own is None):
                continue
            environment = os.environ | (own or {} if row.mps else {})
            if row.source:
                environment["PYTHONPATH"] = os.pathsep.join([row.source, environment.get("PYTHONPATH", "")])
            words = [sys.executable, __file__, "--data", data, "--recipe", recipe, "--seconds", str(seconds)]
            words += ["--ppuda", ppuda] if ppuda else []
            words += ["--one", json.dumps(asdict(row))]
            try:
                done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=90)
            except subprocess.TimeoutExpired:
                print(f"{row.label}: no end", flush=True)
                continue
            answer = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
            if not answer:
                print(f"{row.label}: exit code {done.returncode}\n{done.stderr[-1500:]}", flush=True)
                continue
            f = json.loads(answer[0].removeprefix("FIGURES "))
            line = {"label": row.label, "device": torch.cuda.get_device_name(), **f}
            print(json.dumps(line), flush=True)
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            table.add_row(
                row.label, f"{f['step_ms']:.0f}", f"{f['rate']:.0f}", f"{f['utilisation']:.0f}", f"{f['memory_gb']:.1f}"
            )
    console.print(table)


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)
    typer.run(main)
