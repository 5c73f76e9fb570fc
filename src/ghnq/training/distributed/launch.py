"""The processes of a run: those that torchrun has started, or those that the first one starts on its machine.

Fabric's own launchers do not serve: one runs the user's whole script again in every process and kills the first process
when another dies, the other puts the first one, its signals and its errors into a process of their own as well.
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
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not in their __all__

from ghnq.errors import TrainingError
from ghnq.training.distributed.process_group import Team, end
from ghnq.training.distributed.topology import PATIENCE, Place

HOST = "127.0.0.1"


def gather(place: Place, work: Callable[..., None], *arguments: Any) -> Team:
    """The team of a place, complete; processes started here call `work(team, *arguments)`.

    Raises TrainingError where one of them ends before it is there.
    """
    if place.external and place.sharing > 1:
        dist.init_process_group(place.backend, timeout=PATIENCE)
    if place.size == 1 or place.external:
        return Team(place)
    store = TCPStore(HOST, 0, place.size, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process's threads in any state
    members: list[BaseProcess] = []
    try:
        for rank in range(1, place.size):
            theirs = replace(place, rank=rank, local=rank)
            members.append(context.Process(target=_join, args=(theirs, store.port, work, arguments), daemon=True))
            members[-1].start()
        _await(members, store)
        return _group(place, store, members)
    except BaseException:
        for member in members:
            end(member)
        raise


def _group(place: Place, store: TCPStore, members: list[BaseProcess]) -> Team:
    dist.init_process_group(
        place.backend,
        store=store,
        rank=place.rank,
        world_size=place.size,
        timeout=PATIENCE,
        device_id=place.where if place.backend == "nccl" else None,
    )
    return Team(place, members)


def _await(members: list[BaseProcess], store: TCPStore) -> None:
    """Waits until all further processes are there; one that ends before would be waited for in vain."""
    missing = {_ready(rank): member for rank, member in enumerate(members, start=1)}
    while missing:
        for key, member in list(missing.items()):
            if store.check([key]):
                del missing[key]
            elif not member.is_alive():
                raise TrainingError(
                    f"a training process ended at once (exit code {member.exitcode}; what it said is above). A "
                    "script that calls ghnq.train needs `if __name__ == '__main__':` around it, or set workers=1"
                )
        time.sleep(0.05)


def _ready(rank: int) -> str:
    return f"ready/{rank}"


def _end_with_parent() -> None:
    """Ends this process when the first one is gone, also while it waits for something that will not come."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _join(place: Place, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """What a further process does: it leaves signals to the first one, which tells all when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the first process alone
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    store = TCPStore(HOST, port, place.size, is_master=False, timeout=PATIENCE)
    store.set(_ready(place.rank), "yes")
    team = _group(place, store, [])
    try:
        work(team, *arguments)
    except TrainingError:
        os._exit(1)  # the first process is gone, or has said what is wrong
    team.leave()
