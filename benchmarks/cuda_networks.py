"""What a GPU needs for one small network, there and back, and what keeps it waiting.

    python benchmarks/cuda_networks.py [--networks 12] [--json]

Members of `train` with weights of He's scale, CIFAR-10's shape, forward and backward, one process: asked for by Python
operation by operation (eager), or recorded as CUDA graphs and played again, one after another or side by side on
streams. Milliseconds for each network, median over rounds.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ghnq.hypernet.model import Parameters
from ghnq.training.architectures import build_for_training
from ghnq.training.replay import Replay
from ghnq.training.step import run_network

DEVICE = torch.device("cuda")


def parameters_of(module: nn.Module) -> Parameters:
    """Random ones, of He's scale."""
    found: Parameters = {}
    for name, p in module.named_parameters():
        if p.dim() < 2:
            found[name] = torch.full(p.shape, float(name.endswith("weight")), device=DEVICE)
        else:
            layout = torch.channels_last if p.dim() == 4 else torch.contiguous_format
            weight = torch.randn(p.shape, device=DEVICE) * math.sqrt(2 / p[0].numel())
            found[name] = weight.contiguous(memory_format=layout)
    return found


def milliseconds(run: Callable[[], object], networks: int, rounds: int = 5) -> float:
    run()
    taken = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return 1e3 * statistics.median(taken) / networks


def one(modules: list[nn.Module], images: int, precision: str) -> dict[str, Any]:
    """A row: all networks under one way to compute."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    weights = [parameters_of(module) for module in modules]
    runs = [partial(run_network, module, label_smoothing=0.0) for module in modules]
    x, y = torch.randn(images, 3, 32, 32, device=DEVICE), torch.randint(10, (images,), device=DEVICE)

    def context() -> torch.autocast:
        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16")

    def eager() -> list[Tensor]:
        with context():
            return [run(w, x, y)[0] for run, w in zip(runs, weights, strict=True)]

    replay = Replay(len(modules))

    def replayed() -> list[Tensor]:
        with context():
            return [replay(m, run, w, x, y)[0] for m, run, w in zip(modules, runs, weights, strict=True)]

    row: dict[str, Any] = {"images": images, "precision": precision}
    row["eager"] = milliseconds(eager, len(modules))
    first = torch.stack(replayed())  # eager: they are new
    started = time.perf_counter()
    second = torch.stack(replayed())
    torch.cuda.synchronize()
    row["recording"] = 1e3 * (time.perf_counter() - started) / len(modules)
    row["replay"] = milliseconds(replayed, len(modules))
    row["difference"] = float((first - second).abs().max() / first.abs().max())
    print(row, file=sys.stderr)
    row["kernels"], row["busy"] = kernels(eager, len(modules))
    return row


def kernels(run: Callable[[], object], networks: int) -> tuple[float, float]:
    """Kernels of a network, and milliseconds that they take."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    found = [e for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(e.count for e in found) / networks, sum(e.self_device_time_total for e in found) / 1e3 / networks


def streams(modules: list[nn.Module], images: int, count: int) -> float:
    """Milliseconds for each network, played on so many streams; each stream's graphs have memory of their own."""
    x, y = torch.randn(images, 3, 32, 32, device=DEVICE), torch.randint(10, (images,), device=DEVICE)
    weights = [parameters_of(module) for module in modules]
    lanes = [(torch.cuda.Stream(), Replay(len(modules))) for _ in range(count)]

    def run() -> None:
        for number, (module, w) in enumerate(zip(modules, weights, strict=True)):
            stream, replay = lanes[number % count]
            with torch.cuda.stream(stream):
                replay(module, partial(run_network, module, label_smoothing=0.0), w, x, y)

    torch.cuda.synchronize()  # the streams do not wait for what is above
    run()
    return milliseconds(run, len(modules))


def main(
    networks: Annotated[int, typer.Option(min=1)] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of the table.")] = False,
) -> None:
    """Times all ways on the CUDA device."""
    modules = [build_for_training(index, 3, 10) for index in range(networks)]
    rows = [one(modules, *way) for way in ((32, "tf32"), (32, "bf16"), (128, "tf32"), (256, "tf32"))]
    lanes = {count: streams(modules, 32, count) for count in (1, 4)}
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "networks": networks}
    if as_json:
        print(json.dumps({**about, "rows": rows, "streams": lanes}))
        return
    console = Console(width=max(110, Console().width))
    console.print(f"{about['device']}; torch {about['torch']}; {networks} networks, milliseconds for each")
    table = Table(*rows[0], title="a network, forward and backward")
    for row in rows:
        table.add_row(*(f"{v:.2g}" if isinstance(v, float) and v < 1 else f"{v:.1f}" if isinstance(v, float) else str(v)
                        for v in row.values()))  # fmt: skip
    console.print(table)
    console.print("replayed on streams side by side: " + ", ".join(f"{n}: {ms:.2f} ms" for n, ms in lanes.items()))


if __name__ == "__main__":
    typer.run(main)
