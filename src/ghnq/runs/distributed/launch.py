"""The processes of a run: those that torchrun has started, or those that the first one starts on its machine.

Fabric's own launchers are not used: one runs the user's whole script again in every process and kills the first process
when another ends; the other runs the first process, its signal handlers and its errors in a child process as well.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not in its __all__

from ghnq.errors import TrainingError
from ghnq.runs.distributed.topology import TIMEOUT, Topology
from ghnq.runs.distributed.worker_group import WorkerGroup, terminate

HOST = "127.0.0.1"


def start_workers(topology: Topology, work: Callable[..., None], *arguments: Any) -> WorkerGroup:
    """Returns the complete group of a topology; processes that are started here call `work(group, *arguments)`.

    Raises:
        TrainingError: A process ends before it has joined.
    """
    if topology.by_torchrun and topology.processes_per_device > 1:
        dist.init_process_group(topology.backend, timeout=TIMEOUT)
    if topology.world_size == 1 or topology.by_torchrun:
        return WorkerGroup(topology)
    # Not every build of torch has libuv.
    store = TCPStore(
        HOST, 0, topology.world_size, is_master=True, wait_for_workers=False, timeout=TIMEOUT, use_libuv=False
    )
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads of this process in any state
    processes: list[BaseProcess] = []
    try:
        for rank in range(1, topology.world_size):
            own = replace(topology, rank=rank, local_rank=rank)
            processes.append(context.Process(target=_run, args=(own, store.port, work, arguments), daemon=True))
            processes[-1].start()
        _wait_until_ready(processes, store)
        return _join(topology, store, processes)
    except BaseException:
        for process in processes:
            terminate(process)
        raise


def _join(topology: Topology, store: TCPStore, processes: list[BaseProcess]) -> WorkerGroup:
    """Makes this process a member of the process group."""
    dist.init_process_group(
        topology.backend,
        store=store,
        rank=topology.rank,
        world_size=topology.world_size,
        timeout=TIMEOUT,
        device_id=topology.device if topology.backend == "nccl" else None,
    )
    return WorkerGroup(topology, processes)


def _wait_until_ready(processes: list[BaseProcess], store: TCPStore) -> None:
    """Returns when all started processes are ready to join; one that has ended would be waited for in vain."""
    missing = {_ready_key(rank): process for rank, process in enumerate(processes, start=1)}
    while missing:
        for key, process in list(missing.items()):
            if store.check([key]):
                del missing[key]
            elif not process.is_alive():
                raise TrainingError(
                    f"a training process ended at once (exit code {process.exitcode}; its messages are above). A "
                    "script that calls ghnq.train needs `if __name__ == '__main__':` around it, or set workers=1"
                )
        time.sleep(0.05)


def _ready_key(rank: int) -> str:
    return f"ready/{rank}"


def _exit_with_parent() -> None:
    """Ends this process when its parent has ended, also while it waits for a collective that will not complete."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _run(topology: Topology, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Runs in each started process. Signals are left to the first process, which tells all others when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the first process alone
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    store = TCPStore(HOST, port, topology.world_size, is_master=False, timeout=TIMEOUT, use_libuv=False)
    store.set(_ready_key(topology.rank), "yes")
    group = _join(topology, store, [])
    try:
        work(group, *arguments)
    except TrainingError:
        os._exit(1)  # the first process has ended, or has reported the error
    group.close()
