"""Where independent tasks run: the interface of an engine, and the one for a single machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ghnq.errors import GhnqError
from ghnq.evaluation.workers import run_tasks, usable_workers
from ghnq.torch_threads import one_torch_thread

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs one function on many tasks.

    The function is large (a hypernetwork, images) and the same for all tasks of a call; tasks and results are small,
    and can be pickled. Whatever an engine does, a result depends on the function and its task alone.
    """

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        """Yields function(task) for every task as soon as it is done, in any order; closing it stops what still runs.

        Raises:
            GhnqError: The tasks cannot be run to their end.
            Exception: Any exception of the function, as it is.
        """

    def slots(self) -> int:
        """Returns how many tasks run at once."""


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, each with one thread of torch.

    Attributes:
        workers: How many; None is one for each core.
    """

    workers: int | None = None

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        """Yields results as `Engine.run` says; in order with one worker."""
        with one_torch_thread():
            yield from run_tasks(function, tasks, usable_workers(self.workers, len(tasks)))

    def slots(self) -> int:
        """Returns the number of processes."""
        return usable_workers(self.workers, sys.maxsize)


def engine_of(cluster: str | None, workers: int | None) -> Engine:
    """Returns the engine that the options `--cluster` and `--workers` name.

    Raises:
        GhnqError: Both are given: a cluster decides how many tasks run.
    """
    if cluster is None:
        return Processes(workers)
    if workers is not None:
        raise GhnqError("--workers is for this machine alone, and --cluster for all of a cluster; give one of the two")
    from ghnq.evaluation.ray_cluster import RayCluster

    return RayCluster(cluster)
