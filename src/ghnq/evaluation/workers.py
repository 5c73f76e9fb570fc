"""Tasks distributed over processes that end with their parent, however it ends.

The processes are forked, so they share the data set and the hypernetwork with their parent and start in milliseconds.
Threads would not help: with small networks most of the time is spent in Python.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Generic, Self, TypeVar

import torch

from ghnq.errors import GhnqError

Task = TypeVar("Task")
Result = TypeVar("Result")


def usable_workers(wanted: int | None, tasks: int) -> int:
    """Returns the number of processes to use, which is never more than the number of tasks.

    Args:
        wanted: None is one for each core that this process may use, or one where processes cannot be forked safely,
            which is the case on all systems but Linux.

    Raises:
        GhnqError: `wanted` is less than one, or more than one on another system than Linux.
    """
    can_fork = sys.platform == "linux"
    if wanted is None:
        wanted = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    elif wanted < 1:
        raise GhnqError(f"workers is {wanted}; give at least 1.")
    elif wanted > 1 and not can_fork:
        raise GhnqError(f"{wanted} workers need Linux (they are forked); on {sys.platform} give 1.")
    return max(1, min(wanted, tasks))


def run_tasks(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Generator[Result, None, None]:
    """Yields function(task) for every task as soon as it is done: in order with one worker, in any order with more.

    If there are several workers, each runs torch on one thread. When the iterator is closed or raises, the workers are
    killed at once.

    Raises:
        GhnqError: A worker was killed.
        Exception: Any exception of `function`, as it is.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    with _WorkerPool(function, workers) as pool:
        yield from pool.run(list(tasks))


@dataclass(frozen=True)
class _Failure:
    """An exception of the function."""

    error: Exception


class _WorkerPool(Generic[Task, Result]):
    """Forked processes, each at the other end of a pipe."""

    def __init__(self, function: Callable[[Task], Result], workers: int) -> None:
        self._function = function
        self._workers = workers
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("fork")
        for _ in range(self._workers):
            ours, theirs = context.Pipe()
            # A child inherits our ends of all pipes and closes them: its recv() must end when this process ends.
            inherited = [*self._processes, ours]
            process = context.Process(target=_work, args=(self._function, theirs, inherited), daemon=True)
            with warnings.catch_warnings():
                # Python 3.12 and later warn when a process with threads forks; a child here uses no other thread.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            self._processes[ours] = process
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for connection, process in self._processes.items():
            process.join()
            connection.close()

    def run(self, tasks: list[Task]) -> Iterator[Result]:
        waiting = iter(tasks)
        for connection, task in zip(self._processes, waiting, strict=False):
            connection.send(task)
        for _ in tasks:
            connection = self._next_result()
            outcome = self._receive(connection)
            if isinstance(outcome, _Failure):
                raise outcome.error
            for task in waiting:
                connection.send(task)
                break
            yield outcome

    def _next_result(self) -> Connection:
        ready = wait(list(self._processes))[0]
        assert isinstance(ready, Connection)
        return ready

    def _receive(self, connection: Connection) -> Result | _Failure:
        try:
            outcome: Result | _Failure = connection.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes[connection]
            process.join()
            raise GhnqError(
                f"A worker process was killed (exit code {process.exitcode}), perhaps because memory ran out. "
                "Finished rows are kept if an output folder was given; try fewer workers."
            ) from None
        return outcome


def _work(function: Callable[[Task], Result], connection: Connection, inherited: list[Connection]) -> None:
    """Runs in a worker: receives tasks and sends results or failures, until the parent's end of the pipe is closed."""
    for end in inherited:
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent handles Ctrl-C for all.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            os._exit(0)
        outcome: Result | _Failure
        try:
            outcome = function(task)
        except Exception as error:  # noqa: BLE001 - it is raised in the parent
            error.add_note("In a worker process:\n" + traceback.format_exc())
            outcome = _Failure(error)
        try:
            connection.send(outcome)
        except BrokenPipeError:
            os._exit(0)
