"""Several processes that train one hypernetwork: each runs its share of the networks, gradients are summed.

Networks are small and many, so a process for each core, one thread each, keeps the cores busier than threads do:
neither Python's lock nor the hypernetwork's short operations leave a core waiting. All processes hold the same weights
and make the same updates; one vector is exchanged per step.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not in their __all__

from ghnq.errors import TrainingError

HOST = "127.0.0.1"
PATIENCE = timedelta(minutes=30)
"""Longer than any validation, during which the others wait for the first process."""


class Team:
    """This process's place among `size` processes; a team of one exchanges nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._members: list[BaseProcess] = []

    @classmethod
    def gather(cls, size: int, work: Callable[..., None], *arguments: Any) -> Team:
        """Starts `size - 1` further processes that call `work(team, *arguments)`; this one is the first of the team."""
        team = cls(0, size)
        if size == 1:
            return team
        store = TCPStore(HOST, 0, size, is_master=True, wait_for_workers=False, timeout=PATIENCE)
        context = multiprocessing.get_context("spawn")  # a fork would inherit this process's threads in any state
        try:
            for rank in range(1, size):
                member = context.Process(target=_join, args=(rank, size, store.port, work, arguments), daemon=True)
                member.start()
                team._members.append(member)
            team._await_members(store)
            dist.init_process_group("gloo", store=store, rank=0, world_size=size, timeout=PATIENCE)
        except BaseException:
            team.leave()
            raise
        return team

    @property
    def leads(self) -> bool:
        """Whether this is the first process: the one that reports, measures and saves."""
        return self.rank == 0

    def sum(self, vector: Tensor) -> Tensor:
        """Sums a vector over the team, in place, to the same bits everywhere; raises TrainingError if one is gone."""
        if self.size > 1:
            try:
                dist.all_reduce(vector)
            except RuntimeError as error:
                raise TrainingError(f"a training process is gone; resume the run with --resume ({error})") from error
        return vector

    def wait_for_all(self) -> None:
        """Returns when every process of the team has called this; raises TrainingError if one is gone."""
        self.sum(torch.zeros(1))

    def _await_members(self, store: TCPStore) -> None:
        """Waits until all further processes are there; one that ends before would be waited for in vain."""
        missing = {_ready(rank): member for rank, member in enumerate(self._members, start=1)}
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

    def leave(self) -> None:
        """Ends the exchange, and, in the first process, the others."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
        for member in self._members:
            member.join(timeout=5)
            if member.is_alive():
                member.kill()
                member.join()


def _end_with_parent() -> None:
    """Ends this process when the first one is gone, also while it waits for something that will not come."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _ready(rank: int) -> str:
    return f"ready/{rank}"


def _join(rank: int, size: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """What a further process does: it leaves signals to the first one, which tells all when to stop."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the first process alone
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    store = TCPStore(HOST, port, size, is_master=False, timeout=PATIENCE)
    store.set(_ready(rank), "yes")
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    team = Team(rank, size)
    try:
        work(team, *arguments)
    except TrainingError:
        os._exit(1)  # the first process is gone, or has said what is wrong
    team.leave()
