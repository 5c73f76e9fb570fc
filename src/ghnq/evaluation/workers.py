"""Tasks spread over processes that die with their parent, however it dies.

The processes are forked, so they share the data set and the hypernetwork with their parent and start in milliseconds.
Threads would not do: on small networks most of the time is Python's own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from ghnq.errors import GhnqError

Task = TypeVar("Task")
Result = TypeVar("Result")


def usable_workers(wanted: int | None, tasks: int) -> int:
    """Returns how many processes to use: `wanted`, else one for each core this process may use; never more than tasks.

    Where processes cannot be forked safely (not Linux), the default is one. Raises GhnqError for fewer than one, and
    for more than one where that cannot be had.
    """
    forks = sys.platform == "linux"
    if wanted is None:
        wanted = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    elif wanted < 1:
        raise GhnqError(f"{wanted} workers cannot work; give at least 1.")
    elif wanted > 1 and not forks:
        raise GhnqError(f"{wanted} workers need Linux (they are forked); on {sys.platform} give 1.")
    return max(1, min(wanted, tasks))


def run_tasks(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Generator[Result, None, None]:
    """Yields function(task) for every task, as they are done: in order with one worker, else in any order.

    With more than one worker each runs torch on one thread. An exception of `function` is raised here as it is; a
    worker that is killed raises GhnqError. When the iterator is closed or raises, the workers are killed at once.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    with _Crew(function, workers) as crew:
        yield from crew.run(list(tasks))


class _Crew:
    def __init__(self, function: Callable[[Any], Any], workers: int) -> None:
        self._function = function
        self._workers = workers
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}

    def __enter__(self) -> _Crew:
        context = multiprocessing.get_context("fork")
        for _ in range(self._workers):
            ours, theirs = context.Pipe()
            # A child inherits our ends of all pipes. It closes them: its recv() must end when we die.
            inherited = [*self._processes, ours]
            process = context.Process(target=_work, args=(self._function, theirs, inherited), daemon=True)
            with warnings.catch_warnings():
                # Python 3.12 and later warn of forking beside threads; here a child uses no thread but its own.
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

    def run(self, tasks: list[Any]) -> Iterator[Any]:
        waiting = iter(tasks)
        for connection, task in zip(self._processes, waiting, strict=False):
            connection.send(task)
        for _ in tasks:
            connection = self._next_answer()
            result, error = self._receive(connection)
            if error is not None:
                raise error
            for task in waiting:
                connection.send(task)
                break
            yield result

    def _next_answer(self) -> Connection:
        ready = wait(list(self._processes))[0]
        assert isinstance(ready, Connection)
        return ready

    def _receive(self, connection: Connection) -> Any:
        try:
            return connection.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes[connection]
            process.join()
            raise GhnqError(
                f"A worker process was killed (exit code {process.exitcode}), perhaps for want of memory. "
                "What is finished is kept where an output folder was given; try fewer workers."
            ) from None


def _work(function: Callable[[Any], Any], connection: Connection, inherited: list[Connection]) -> None:
    """The life of one worker: a task comes, (result, error) goes; the parent's end of the pipe closing ends it."""
    for end in inherited:
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, for all
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            os._exit(0)
        answer: tuple[Any, Exception | None]
        try:
            answer = (function(task), None)
        except Exception as error:  # noqa: BLE001 - it is raised in the parent
            error.add_note("In a worker process:\n" + traceback.format_exc())
            answer = (None, error)
        try:
            connection.send(answer)
        except BrokenPipeError:
            os._exit(0)
