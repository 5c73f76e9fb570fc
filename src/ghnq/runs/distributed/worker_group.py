"""Several processes that train one hypernetwork: each runs its share of the networks, gradients are summed.

Networks are small and many, so one single-threaded process for each core keeps the cores busier than threads do:
neither Python's lock nor the hypernetwork's short operations leave a core waiting. A GPU is kept busy in the same way,
by processes that share it. All processes hold the same weights and make the same updates; one vector is exchanged per
step.

Fabric places tensors, makes the processes that torchrun started one group, and chooses the precision. It does not wrap
the hypernetwork: DistributedDataParallel's hooks would see only parts of the single backward pass.
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
from ghnq.runs.distributed.topology import Topology


class WorkerGroup:
    """The processes of a run as seen by one of them; a group of one exchanges nothing.

    Args:
        topology: The processes, and which of them this one is.
        processes: Those that this process has started; it ends them in `close`.

    Attributes:
        device: Device that this process's networks run on.
    """

    def __init__(self, topology: Topology | None = None, processes: Sequence[BaseProcess] = ()) -> None:
        self.topology, self.processes = topology or Topology(), tuple(processes)
        self.rank, self.world_size = self.topology.rank, self.topology.world_size
        from ghnq.runs.distributed.fabric import make_fabric  # slow to import, and not needed before a run starts

        self._fabric = make_fabric(self.topology)
        self.device: torch.device = self._fabric.device

    @property
    def is_first(self) -> bool:
        """Whether this is the first process, which reports, validates and saves."""
        return self.rank == 0

    def precision(self) -> AbstractContextManager[None]:
        """Returns the autocast context in which networks run."""
        context: AbstractContextManager[None] = self._fabric.autocast()
        return context

    def sum(self, vector: Tensor) -> Tensor:
        """Sums a vector over all processes, in place; the result is bit-identical in every process.

        Fabric's `all_reduce` is not used because it waits at a barrier first, which makes two exchanges of one.

        Raises:
            TrainingError: A process has ended.
        """
        if self.world_size == 1:
            return vector
        nccl = self.topology.backend == "nccl"
        exchanged = vector if nccl else vector.cpu()
        try:
            work = dist.all_reduce(exchanged, async_op=True)
            if nccl:  # NCCL would wait for a process that has ended
                while not work.is_completed():
                    self._check_processes()
                    time.sleep(1e-4)
            work.wait()
        except RuntimeError as error:
            raise TrainingError(f"a training process is gone; resume the run with --resume ({error})") from error
        return vector if exchanged is vector else vector.copy_(exchanged)

    def barrier(self) -> None:
        """Returns when every process of the group has called this.

        Raises:
            TrainingError: A process has ended.
        """
        self.sum(torch.zeros(1, device=self.device))

    def close(self) -> None:
        """Ends communication, and the processes that this one has started."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()
        for process in self.processes:
            terminate(process)

    def _check_processes(self) -> None:
        for process in self.processes:
            if process.exitcode:
                raise RuntimeError(f"exit code {process.exitcode}")


def terminate(process: BaseProcess) -> None:
    """Waits for a process that is about to end, and kills it if it does not."""
    process.join(timeout=5)
    if process.is_alive():
        process.kill()
        process.join()
