"""Throughput of small networks on a GPU: streams, vmap, several processes, with and without NVIDIA's MPS.

    python benchmarks/cuda_sharing.py [--networks 16] [--seconds 2] [--processes 1,4,8,16] [--json]

Networks, images and convolution backends as in cuda_networks.py, 32 images; each process has run all of its networks
before. Networks per second of all processes together, forward and backward, without a hypernetwork; utilisation: the
share of time in which any kernel runs, as the driver samples it. `vmap`: one structure with several sets of weights.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor
from torch.func import functional_call, grad, vmap

from cuda_monitor import service, utilisation
from cuda_networks import Network, apart, batch, parameters_of, prepare, ready, report, timed
from ghnq.hypernet.model import Parameters
from ghnq.spaces.convnets import SPACE
from ghnq.training.networks.architecture_stream import build_on_meta
from ghnq.training.networks.cuda_graphs import CudaGraphCache


def streams_rows(backend: str, networks: int) -> list[dict[str, Any]]:
    """Recorded networks one after another, and on four streams; each stream's graphs have memory of their own."""
    members, (x, y) = ready(backend, range(networks)), batch(32)

    def run(lanes: list[tuple[torch.cuda.Stream, CudaGraphCache]]) -> None:
        for number, member in enumerate(members):
            stream, replay = lanes[number % len(lanes)]
            with torch.cuda.stream(stream):
                member.replayed(replay, x, y)

    row: dict[str, Any] = {"convolutions": backend}
    for count in (1, 4):
        lanes = [(torch.cuda.Stream(), CudaGraphCache(networks)) for _ in range(count)]
        torch.cuda.synchronize()  # the streams do not wait for what is above
        for _ in range(3):
            run(lanes)
        row[f"streams {count}, networks/s"] = rate(partial(run, lanes), networks)
    return [row]


def vmap_rows(backend: str, member: int, copies: int) -> list[dict[str, Any]]:
    """One structure with several sets of weights: one after another, recorded, and all at once by vmap."""
    (module,) = prepare(backend, range(member, member + 1))
    plain = build_on_meta(SPACE, member, 3, 10)  # vmap refuses changes of layout
    networks, (x, y) = [Network(module, parameters_of(module)) for _ in range(copies)], batch(32)
    replay = CudaGraphCache(1)

    def loss(w: Parameters) -> Tensor:
        return F.cross_entropy(functional_call(plain, w, (x,)), y)

    together = {name: torch.stack([n.weights[name].contiguous() for n in networks]) for name in networks[0].weights}
    gradients = vmap(grad(loss))
    row: dict[str, Any] = {"convolutions": backend, "member": member, "copies": copies}
    methods: tuple[tuple[str, Callable[[], object]], ...] = (
        ("eager", lambda: [n.eager(x, y) for n in networks]),
        ("replay", lambda: [n.replayed(replay, x, y) for n in networks]),
        ("vmap", lambda: gradients(together)),
    )
    for name, run in methods:
        for _ in range(3):
            run()
        row[f"{name}, networks/s"] = rate(run, copies)
    ours, theirs = networks[0].run(networks[0].weights, x, y)[2], gradients(together)
    row["difference"] = max(float((ours[n] - theirs[n][0]).abs().max()) for n in ours) / max(
        float(g.abs().max()) for g in ours.values()
    )
    return [row]


def rate(run: Callable[[], object], networks: int, rounds: int = 10) -> float:
    return 1e3 * networks * rounds / timed(lambda: [run() for _ in range(rounds)])


def processes_rows(
    backend: str, processes: int, mps: dict[str, str] | None, networks: int, seconds: float
) -> list[dict[str, Any]]:
    """Several processes, each with its own networks, eager and then replayed."""
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(processes + 1, timeout=120), context.Queue()
    arguments = (gate, results, backend, mps, networks, seconds)
    started = [context.Process(target=_work, args=(number, *arguments)) for number in range(processes)]
    for process in started:
        process.start()
    row: dict[str, Any] = {"convolutions": backend, "processes": processes, "mps": mps is not None}
    try:
        for name in ("eager", "replay"):
            gate.wait()
            with utilisation() as seen:
                row[f"{name}, networks/s"] = sum(results.get(timeout=120) for _ in started)
            row[f"{name}, busy %"] = sum(seen) / len(seen) if seen else float("nan")
            gate.wait()
    finally:
        for process in started:
            process.join(20)
            process.kill()
    return [row]


def _work(
    number: int, gate: Any, results: Any, backend: str, mps: dict[str, str] | None, networks: int, seconds: float
) -> None:
    os.environ.update(mps or {})
    torch.set_num_threads(1)
    members, (x, y) = ready(backend, range(number * networks, (number + 1) * networks)), batch(32)
    replay = CudaGraphCache(networks)
    methods: tuple[Callable[[Network], Tensor], ...] = (lambda n: n.eager(x, y), lambda n: n.replayed(replay, x, y))
    for run in methods:
        for _ in range(3):
            for member in members:
                run(member)
        torch.cuda.synchronize()
        gate.wait()
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            for member in members:
                run(member)
            torch.cuda.synchronize()
            done += networks
        results.put(done / (time.perf_counter() - started))
        gate.wait()


def main(
    networks: Annotated[int, typer.Option(min=1, help="Of each process.")] = 16,
    seconds: Annotated[float, typer.Option(min=1, help="That count, of every row.")] = 2.0,
    processes: Annotated[str, typer.Option(help="Numbers of processes.")] = "1,4,8,16",
    backends: Annotated[
        str, typer.Option(help="Convolution backends as named in cuda_networks.py, separated by |.")
    ] = "own depthwise",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON document for each row instead of tables.")] = False,
) -> None:
    """Times all methods to share the CUDA device."""
    counts, chosen = [int(count) for count in processes.split(",")], backends.split("|")
    with service() as own:
        kinds = [None] if own is None else [None, own]
        shared = [
            partial(processes_rows, backend, n, kind, networks, seconds)
            for backend, kind, n in product(chosen, kinds, counts)
        ]
        parts: dict[str, list[Callable[[], list[dict[str, Any]]]]] = {
            "streams": [partial(apart, streams_rows, backend, networks) for backend in chosen],
            "vmap": [partial(apart, vmap_rows, backend, 1, 8) for backend in chosen],
            "processes": [*shared],
        }
        report(parts, as_json)


if __name__ == "__main__":
    typer.run(main)
