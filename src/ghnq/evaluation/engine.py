"""Where independent tasks run: the interface of an engine, and the one for a single machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

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
