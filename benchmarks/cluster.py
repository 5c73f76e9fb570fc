"""What an engine costs: empty tasks per second, and the efficiency of workers at real ones; Ray against processes.

    python benchmarks/cluster.py [--empty 2000] [--architectures 48] [--images 360] [--workers 1,2,4]

A cluster of one node on this machine is made for each number of workers. Real tasks are members of `val` at float32 and
w4a8 on the digits. The efficiency is the time of one process without any engine's workers, divided by workers and time;
with more workers than cores it cannot be 1. Networks are measured once before the clock starts, so that workers run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ghnq.evaluation import evaluate
from ghnq.evaluation.engine import Engine, Processes
from ghnq.evaluation.ray_cluster import RayCluster
from ghnq.hypernet import GHN
from ghnq.optional_imports import quiet
from ghnq.prediction import dataset_for
from ghnq.processor import this_processor


def nothing(task: int) -> int:
    return task


@contextmanager
def local_cluster(cores: int) -> Iterator[str]:
    """A cluster of one node with so many cores; yields its address."""
    with quiet():
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "object_store_memory": 500_000_000})
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def empty(engine: Engine, tasks: int) -> float:
    """Tasks per second."""
    list(engine.run(nothing, range(engine.slots())))
    return tasks / seconds(lambda: list(engine.run(nothing, range(tasks))))


def real(options: dict[str, Any], **engine: Any) -> float:
    """Seconds of an evaluation."""
    ghn = GHN.from_pretrained("digits")
    run = partial(evaluate, ghn, dataset_for(ghn, None), checkpoint="digits", **engine)
    run(**options | {"limit": min(8, options["limit"])})
    return seconds(lambda: run(**options))


def main(
    empty_tasks: Annotated[int, typer.Option("--empty")] = 2000,
    architectures: Annotated[int, typer.Option()] = 48,
    images: Annotated[int, typer.Option()] = 360,
    workers: Annotated[str, typer.Option()] = "1,2,4",
) -> None:
    options = {"splits": ("val",), "schemes": ("float32", "w4a8"), "limit": architectures, "images": images}
    counts = [int(count) for count in workers.split(",")]
    table = Table("engine", "workers", "empty tasks/s", "networks/s", "efficiency")
    real(options, workers=1)  # compiles kernels and reads files, which the others would find done
    alone = real(options, workers=1)

    def row(name: str, count: int, rate: float, taken: float) -> None:
        efficiency = alone / (count * taken)
        table.add_row(name, str(count), f"{rate:,.0f}", f"{architectures / taken:.2f}", f"{efficiency:.2f}")

    for count in counts:
        row("processes", count, empty(Processes(count), empty_tasks), real(options, workers=count))
    for count in counts:
        with local_cluster(count) as address:
            row("Ray", count, empty(RayCluster(address), empty_tasks), real(options, cluster=address))
    Console().print(table, this_processor().line())


if __name__ == "__main__":
    typer.run(main)
