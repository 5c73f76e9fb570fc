"""Several processes that train one hypernetwork: each runs its share of the networks, gradients are summed.

Networks are small and many, so a process for each core, one thread each, keeps the cores busier than threads do:
neither Python's lock nor the hypernetwork's short operations leave a core waiting. A GPU is kept busy in the same way,
by processes that share it. All processes hold the same weights and make the same updates; one vector is exchanged per
step.

Fabric places tensors, makes the processes that torchrun started one group, and chooses the precision. It does not wrap
the hypernetwork: gradients come from a single backward pass that DistributedDataParallel's hooks would not see whole.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess

import torch
import torch.distributed as dist
from torch import Tensor

from ghnq.errors import TrainingError
from ghnq.training.distributed.topology import Place


class Team:
    """This process's place among the processes of a run; a team of one exchanges nothing.

    members: processes that this one has started, and ends when it leaves. device: where its networks run.
    """

    def __init__(self, place: Place | None = None, members: Sequence[BaseProcess] = ()) -> None:
        self.place, self.members = place or Place(), tuple(members)
        self.rank, self.size = self.place.rank, self.place.size
        from ghnq.training.distributed.fabric import make_fabric  # heavy, and of no use before a run starts

        self._fabric = make_fabric(self.place)
        self.device: torch.device = self._fabric.device

    @property
    def leads(self) -> bool:
        """Whether this is the first process: the one that reports, measures and saves."""
        return self.rank == 0

    def precision(self) -> AbstractContextManager[None]:
        """The context in which networks run."""
        context: AbstractContextManager[None] = self._fabric.autocast()
        return context

    def sum(self, vector: Tensor) -> Tensor:
        """Sums a vector over the team, in place, to the same bits everywhere; raises TrainingError if one is gone.

        Not by Fabric's `all_reduce`, which makes a second exchange of every one: it waits at a barrier first.
        """
        if self.size == 1:
            return vector
        near = vector if self.place.backend == "nccl" else vector.cpu()
        try:
            work = dist.all_reduce(near, async_op=True)
            if self.place.backend == "nccl":  # it would itself wait for a process that is gone
                while not work.is_completed():
                    self._check_members()
                    time.sleep(1e-4)
            work.wait()
        except RuntimeError as error:
            raise TrainingError(f"a training process is gone; resume the run with --resume ({error})") from error
        return vector if near is vector else vector.copy_(near)

    def wait_for_all(self) -> None:
        """Returns when every process of the team has called this; raises TrainingError if one is gone."""
        self.sum(torch.zeros(1, device=self.device))

    def leave(self) -> None:
        """Ends the exchange, and the processes that this one started."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
        for member in self.members:
            end(member)

    def _check_members(self) -> None:
        for member in self.members:
            if member.exitcode:
                raise RuntimeError(f"exit code {member.exitcode}")


def end(member: BaseProcess) -> None:
    """Waits for a process that is about to end, and ends it if it does not."""
    member.join(timeout=5)
    if member.is_alive():
        member.kill()
        member.join()
