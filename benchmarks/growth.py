"""Claims: time grows near-linearly to 3,000 nodes; peak memory is at most 3 times the predicted parameters + 500 MB.

    python benchmarks/growth.py [--repeats 3] [--threads 1] [--out FILE.svg] [--json]

Residual chains of 100 to 3,000 nodes with 16 channels, and 3,000 nodes side by side, are traced, batched (levels and
virtual edges) and predicted by a hypernetwork of the default size; medians. Each size runs in a process of its own.
Memory is the highest resident set of that process (`VmHWM` of Linux, which unlike `ru_maxrss` does not count what the
parent held before `exec`) above what it held after the imports, the hypernetwork and one small network. Networks are
built on `meta`: their own weights take no memory. The exponent is the slope between the last two chains, log by log.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from ghnq.files import atomic_path
from ghnq.graph import trace
from ghnq.graph.batching.batch import GraphBatch
from ghnq.hypernet.model import GHN
from loglog import loglog
from networks import residual_chain, wide

SIZES = (100, 300, 1000, 3000)
CHANNELS = 16
SHAPES: dict[str, Callable[[int, int], nn.Module]] = {"chain": residual_chain, "wide": wide}
MEGABYTE = 1e6
STAGES = ("trace", "batch", "predict")


@dataclass
class Row:
    """One network: medians in milliseconds, memory in MB."""

    shape: str
    nodes: int
    parameters_mb: float
    trace_ms: float
    batch_ms: float
    predict_ms: float
    total_ms: float
    peak_mb: float
    allowed_mb: float


def resident(field: str) -> float:
    """MB of a field of /proc/self/status: VmRSS now, VmHWM the highest of this program."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / MEGABYTE


def run(ghn: GHN, network: nn.Module) -> tuple[list[float], int, float]:
    """Seconds of each stage, the number of nodes, and the MB predicted."""
    marks = [time.perf_counter()]
    graph = trace(network, (3, 32, 32))
    marks.append(time.perf_counter())
    batch = GraphBatch.from_graphs([graph])
    _ = batch.forward, batch.backward  # computed on first access
    marks.append(time.perf_counter())
    with torch.no_grad():
        parameters = ghn(batch)[0]
    marks.append(time.perf_counter())
    predicted = sum(tensor.nbytes for tensor in parameters.values()) / MEGABYTE
    return [end - start for start, end in pairwise(marks)], len(graph), predicted


def measure(shape: str, nodes: int, repeats: int, threads: int) -> Row:
    """Runs in a process of its own."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    ghn = GHN().eval()
    run(ghn, residual_chain(20, CHANNELS))
    with torch.device("meta"):
        network = SHAPES[shape](nodes, CHANNELS)
    gc.collect()
    before = resident("VmRSS")
    runs = []
    for _ in range(repeats):
        runs.append(run(ghn, network))
        gc.collect()
    peak = resident("VmHWM") - before
    stages = [1e3 * statistics.median(parts) for parts in zip(*(seconds for seconds, _, _ in runs), strict=True)]
    total = 1e3 * statistics.median(sum(seconds) for seconds, _, _ in runs)
    _, found, predicted = runs[0]
    return Row(shape, found, predicted, *stages, total, peak_mb=peak, allowed_mb=3 * predicted + 500)


def exponent(rows: list[Row], column: str) -> float:
    """The slope between the last two rows, log by log."""
    (x1, y1), (x2, y2) = ((row.nodes, getattr(row, column)) for row in rows[-2:])
    return log(y2 / y1) / log(x2 / x1)


def show(rows: list[Row], exponents: dict[str, float], threads: int) -> None:
    table = Table(title=f"milliseconds and peak memory in MB, {threads} thread(s)")
    for column in ("network", "nodes", "trace", "batch", "predict", "total", "peak", "allowed"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for r in rows:
        times = (r.trace_ms, r.batch_ms, r.predict_ms, r.total_ms, r.peak_mb, r.allowed_mb)
        table.add_row(r.shape, str(r.nodes), *(f"{value:.0f}" for value in times))
    found = ", ".join(f"{stage} {value:.2f}" for stage, value in exponents.items())
    console = Console()
    console.print(table)
    console.print(f"Exponents between the last two chains: {found}.")


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Counted runs of each size.")] = 3,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="An SVG file for the figure.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of the table.")] = False,
) -> None:
    """Measures every size in a fresh process."""
    tasks = [*(("chain", size) for size in SIZES), ("wide", SIZES[-1])]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as pool:
        rows = [pool.submit(measure, shape, size, repeats, threads).result() for shape, size in tasks]
    chains = [row for row in rows if row.shape == "chain"]
    exponents = {stage: exponent(chains, f"{stage}_ms") for stage in (*STAGES, "total")}
    if out is not None:
        nodes = [row.nodes for row in chains]
        lines = {stage: [getattr(row, f"{stage}_ms") for row in chains] for stage in (*STAGES, "total")}
        title = f"Residual chains: from module to parameters, {threads} thread(s)"
        with atomic_path(out) as path:
            path.write_text(loglog(title, ("nodes", nodes), ("milliseconds", lines)))
    if as_json:
        document = {"threads": threads, "repeats": repeats, "torch": torch.__version__, "exponents": exponents}
        print(json.dumps({**document, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        show(rows, exponents, threads)


if __name__ == "__main__":
    typer.run(main)
