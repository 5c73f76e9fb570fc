"""The time that channel factors add to a prediction: `channel_rank` 16 against 0.

    python benchmarks/channel_factors.py [--rank 16] [--repeats 7] [--threads 1]

MobileNet v2, ResNet-50, and residual chains with 96 channels are predicted by a hypernetwork of the default size, in
both layouts; medians of CPU time. The exponent is the slope between the last two chains, log by log.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial
from math import log
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from ghnq.graph import trace
from ghnq.hypernet import GHN, GHNConfig
from networks import mobilenet_v2, residual_chain, resnet50

CHANNELS = 96
SIZES = (300, 1000, 3000)


def milliseconds(build: Callable[[], nn.Module], ghns: list[GHN], repeats: int, *, channels_last: bool) -> list[float]:
    """Returns the median of each hypernetwork; their runs alternate, and the first ones are not counted."""
    with torch.device("meta"):
        graph = trace(build(), (3, 32, 32))
    times: list[list[float]] = [[] for _ in ghns]
    for _ in range(repeats + 1):
        for ghn, measured in zip(ghns, times, strict=True):
            gc.collect()
            start = time.process_time()
            with torch.no_grad():
                ghn.predict(graph, channels_last=channels_last)
            measured.append(1e3 * (time.process_time() - start))
    return [statistics.median(measured[1:]) for measured in times]


def main(
    rank: Annotated[int, typer.Option(min=1, help="`channel_rank` of the second hypernetwork.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Counted predictions of each network.")] = 7,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Measures and prints a table."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    ghns = [GHN(GHNConfig(channel_rank=r)).eval() for r in (0, rank)]
    table = Table(title=f"CPU milliseconds of a prediction, {threads} thread(s)")
    for column in ("network", "layout", "rank 0", f"rank {rank}", "ratio"):
        table.add_column(column)
    networks = {"MobileNet v2": mobilenet_v2, "ResNet-50": resnet50}
    chains = {f"chain of {n} nodes": partial(residual_chain, n, CHANNELS) for n in SIZES}
    found = {}
    for name, build in {**networks, **chains}.items():
        for channels_last in (False, True):
            without, with_factors = milliseconds(build, ghns, repeats, channels_last=channels_last)
            found[name, channels_last] = without, with_factors
            layout = "channels last" if channels_last else "contiguous"
            ratio = f"{with_factors / without:.2f}"
            table.add_row(name, layout, f"{without:.1f}", f"{with_factors:.1f}", ratio)
    console = Console()
    console.print(table)
    smaller, larger = (found[f"chain of {n} nodes", False] for n in SIZES[-2:])
    slopes = [log(b / a) / log(SIZES[-1] / SIZES[-2]) for a, b in zip(smaller, larger, strict=True)]
    console.print(f"Exponents between the last two chains: {slopes[0]:.2f} without factors, {slopes[1]:.2f} with them.")


if __name__ == "__main__":
    typer.run(main)
