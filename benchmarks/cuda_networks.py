"""Time of one small network on a GPU, forward and backward, and its parts.

    python benchmarks/cuda_networks.py [--networks 24] [--json]

Members of `train` with weights of He's scale, CIFAR-10's shape, forward and backward, one process for each row.
All convolutions by cuDNN, or depthwise ones by PyTorch's own kernels (ghnq/training/networks/depthwise.py), as in
training. Milliseconds for each network:

new       the first run of a network, after other networks have run; `shapes`: convolution shapes not seen before
eager     launched from Python operation by operation, all shapes seen before
replay    replayed from CUDA graphs; `record`: the run in which they are recorded
kernels   number of kernels of one network, and `busy`, the milliseconds that they take on the GPU

Then, convolution by convolution: the first call of a shape, forward and backward, and the second.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ghnq.hypernet.model import Parameters
from ghnq.spaces.convnets import SPACE
from ghnq.training.networks.architecture_stream import build_on_meta
from ghnq.training.networks.cuda_graphs import CudaGraphCache, Run
from ghnq.training.networks.depthwise import with_fast_depthwise
from ghnq.training.networks.step import run_network

BACKENDS = ("cudnn", "own depthwise")


def parameters_of(module: nn.Module) -> Parameters:
    """Random parameters of He's scale, on the GPU."""
    found: Parameters = {}
    for name, p in module.named_parameters():
        if p.dim() < 2:
            found[name] = torch.full(p.shape, float(name.endswith("weight")), device="cuda")
        else:
            layout = torch.channels_last if p.dim() == 4 else torch.contiguous_format
            weight = torch.randn(p.shape, device="cuda") * math.sqrt(2 / p[0].numel())
            found[name] = weight.contiguous(memory_format=layout)
    return found


def batch(images: int) -> tuple[Tensor, Tensor]:
    return torch.randn(images, 3, 32, 32, device="cuda"), torch.randint(10, (images,), device="cuda")


def prepare(backend: str, indices: range) -> list[nn.Module]:
    """Members of `train` whose convolutions use this backend."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    modules = [build_on_meta(SPACE, index, 3, 10) for index in indices]
    return modules if backend == "cudnn" else [with_fast_depthwise(module) for module in modules]


@dataclass(frozen=True)
class Network:
    """A member of `train` with weights, ready to be run."""

    module: nn.Module
    weights: Parameters

    @property
    def run(self) -> Run:
        return partial(run_network, self.module, label_smoothing=0.0)

    def eager(self, x: Tensor, y: Tensor) -> Tensor:
        """Runs forward and backward, and returns the loss."""
        return self.run(self.weights, x, y)[0]

    def replayed(self, replay: CudaGraphCache, x: Tensor, y: Tensor) -> Tensor:
        return replay(self.module, self.run, self.weights, x, y)[0]


def ready(backend: str, indices: range) -> list[Network]:
    return [Network(module, parameters_of(module)) for module in prepare(backend, indices)]


def timed(run: Callable[[], object]) -> float:
    """Milliseconds until the GPU is done."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def networks_rows(backend: str, images: int, precision: str, networks: int) -> list[dict[str, Any]]:
    """One row; as many other networks run first, so that common shapes are known."""
    members = ready(backend, range(2 * networks))
    shapes = new_shapes([member.module for member in members], images)
    x, y = batch(images)
    replay = CudaGraphCache(len(members))

    def context() -> torch.autocast:
        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16")

    def eager(member: Network) -> Tensor:
        with context():
            return member.eager(x, y)

    def replayed(member: Network) -> Tensor:
        with context():
            return member.replayed(replay, x, y)

    def each(run: Callable[[Network], Tensor]) -> list[Tensor]:
        return [run(member) for member in members[networks:]]

    row: dict[str, Any] = {"convolutions": backend, "images": images, "precision": precision}
    for member in members[:networks]:
        eager(member)
    row["shapes"] = sum(shapes[networks:]) / networks
    row["new"] = timed(partial(each, eager)) / networks
    row["eager"] = statistics.median(timed(partial(each, eager)) for _ in range(5)) / networks
    first = torch.stack(each(replayed))  # eager: the first time that it sees them
    row["record"] = timed(partial(each, replayed)) / networks
    row["replay"] = statistics.median(timed(partial(each, replayed)) for _ in range(5)) / networks
    row["difference"] = float((first - torch.stack(each(replayed))).abs().max() / first.abs().max())
    row["kernels"], row["busy"] = kernels(partial(each, eager), networks)
    return [row]


def new_shapes(modules: list[nn.Module], images: int) -> list[int]:
    """For each module how many of its convolutions have a shape that neither it nor one before has had."""
    seen: set[object] = set()
    found = []
    for module in modules:
        before = len(seen)

        def see(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            assert isinstance(layer, nn.Conv2d)
            seen.add((inputs[0].shape, layer.weight.shape, layer.stride, layer.padding, layer.dilation))

        handles = [layer.register_forward_hook(see) for layer in module.modules() if isinstance(layer, nn.Conv2d)]
        module(torch.empty(images, 3, 32, 32, device="meta"))
        for handle in handles:
            handle.remove()
        found.append(len(seen) - before)
    return found


def kernels(run: Callable[[], object], networks: int) -> tuple[float, float]:
    """Kernels of a network, and milliseconds that they take."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        timed(run)
    found = [e for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(e.count for e in found) / networks, sum(e.self_device_time_total for e in found) / 1e3 / networks


def shapes_rows(backend: str, shapes: int = 12) -> list[dict[str, Any]]:
    """Milliseconds of the first and second call of convolutions that differ in their channels alone."""
    prepare(backend, range(0))
    rows = []
    for kernel, depthwise in ((1, False), (3, False), (3, True)):
        calls = [calls_of(backend, channels, kernel, depthwise) for channels in (64, *range(8, 8 + 4 * shapes, 4))]
        del calls[0]  # it brings the libraries
        medians = {name: statistics.median(call[name] for call in calls) for name in calls[0]}
        rows.append({"convolutions": backend, "kernel": kernel, "depthwise": depthwise, **medians})
    return rows


def calls_of(backend: str, channels: int, kernel: int, depthwise: bool) -> dict[str, float]:
    """Milliseconds of a convolution that has not been called, and then called again."""
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels if depthwise else 1)
    if backend != "cudnn":
        with_fast_depthwise(layer)
    layer.to("cuda", memory_format=torch.channels_last)
    x = torch.randn(32, channels, 16, 16, device="cuda").contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    found = {}

    def call(order: str) -> None:
        y: list[Tensor] = []
        found[f"forward, {order}"] = timed(lambda: y.append(layer(x)))
        gradient = torch.randn_like(y[0])
        found[f"backward, {order}"] = timed(lambda: torch.autograd.grad(y[0], [x, layer.weight], gradient))

    for order in ("first", "second"):
        call(order)
    return found


def profile_rows(networks: int) -> list[dict[str, Any]]:
    """Where the host is in the first run of new networks with cuDNN: the operations that take longest by themselves."""
    members, (x, y) = ready("cudnn", range(2 * networks)), batch(32)

    def run(some: list[Network]) -> None:
        for member in some:
            member.eager(x, y)

    run(members[:networks])
    totals = []
    for _ in range(2):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            timed(partial(run, members[networks:]))
        totals.append({e.key: e.self_cpu_time_total / 1e3 / networks for e in profile.key_averages()})
    most = sorted(totals[0], key=lambda name: -totals[0][name])[:4]
    named = [{"operation": name, "new": totals[0][name], "known": totals[1].get(name, 0.0)} for name in most]
    return [*named, {"operation": "all", "new": sum(totals[0].values()), "known": sum(totals[1].values())}]


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function gives in a process of its own, which knows of no shape; forked, so CUDA must not be in use."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(function(*arguments)))
    process.start()
    while process.is_alive() and queue.empty():
        time.sleep(0.01)
    if queue.empty():
        raise RuntimeError(f"{function.__name__}{arguments} ended with exit code {process.exitcode}")
    found = queue.get()
    process.join()
    return found


def about() -> dict[str, Any]:
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}


def report(parts: dict[str, list[Callable[[], list[dict[str, Any]]]]], as_json: bool) -> None:
    """Measures the rows of all parts, and shows each part as a table, or each row as it comes as JSON."""
    console = Console(width=max(130, Console().width))
    for title, calls in parts.items():
        rows: list[dict[str, Any]] = []
        for call in calls:
            try:
                found = call()
            except (RuntimeError, Empty) as error:  # the process has printed more; the other rows are still of use
                print(f"{title}: {error!r}", file=sys.stderr, flush=True)
                continue
            rows += found
            for row in found if as_json else []:
                print(json.dumps(row), flush=True)
        if rows and not as_json:
            console.print(_table(title, rows))


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{v:.2g}" if isinstance(v, float) and v < 1 else f"{v:.1f}" if isinstance(v, float) else str(v)
                        for v in row.values()))  # fmt: skip
    return table


def main(
    networks: Annotated[int, typer.Option(min=1)] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON document for each row instead of tables.")] = False,
) -> None:
    """Times all backends on the CUDA device."""
    settings = [(backend, 32, "tf32") for backend in BACKENDS] + [
        ("own depthwise", 128, "tf32"),
        ("own depthwise", 32, "bf16"),
    ]
    print(json.dumps(apart(about)), flush=True)
    parts = {
        "a network, forward and backward, ms": [
            partial(apart, networks_rows, *backend, networks) for backend in settings
        ],
        "32 images of 16 x 16, ms": [partial(apart, shapes_rows, backend) for backend in BACKENDS],
        "time of the host in each network, ms": [partial(apart, profile_rows, networks)],
    }
    report(parts, as_json)


if __name__ == "__main__":
    typer.run(main)
