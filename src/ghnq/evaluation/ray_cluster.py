"""The engine for many machines: independent tasks on a cluster of Ray (Moritz et al. 2018, arXiv 1712.05889)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from ghnq._version import __version__
from ghnq.errors import GhnqError
from ghnq.optional_imports import import_optional, quiet
from ghnq.torch_threads import one_torch_thread

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_FOR_EACH_CORE = 2
"""Tasks that are sent for each core of the cluster: one runs, one waits."""
PATIENCE = 10.0
"""Seconds until an address is given up."""
RETRIES = 5
"""How often a task is run again after its worker or node died."""

_functions: dict[str, Callable[[Any], object]] = {}
"""In a worker: the function of the call that runs, by the name of the object that it is in."""


@dataclass(frozen=True)
class RayCluster:
    """Workers of a cluster, each with one core and one thread of torch.

    The function of a call, which has the hypernetwork and the images, is put into the object store once, and each
    worker reads it once. Tasks of a worker or node that dies run again elsewhere.

    Attributes:
        address: `auto` for the cluster that this machine belongs to, `HOST:PORT`, or `ray://HOST:PORT`.
    """

    address: str

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        """Yields results as `Engine.run` says, in the order in which they are done.

        Raises:
            GhnqError: The cluster cannot be reached, a node has another version of ghnq, or a task's workers died
                again and again.
        """
        ray = import_optional("ray")
        with _connection(ray, self.address):
            yield from _stream(ray, function, tasks)

    def slots(self) -> int:
        """Returns the number of cores of the cluster.

        Raises:
            GhnqError: It cannot be reached.
        """
        ray = import_optional("ray")
        with _connection(ray, self.address):
            return _cores(ray)


@contextmanager
def _connection(ray: Any, address: str) -> Iterator[None]:
    """Connects to a cluster, unless this process is connected, and ends a connection that it began."""
    if ray.is_initialized():
        yield
        return
    try:
        _knock(address)
        with quiet():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = next((line.strip(" .") for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise GhnqError(
            f"the cluster '{address}' cannot be reached: {reason}. --cluster takes auto (a cluster that was started on "
            "this machine with `ray start`), HOST:PORT, or ray://HOST:PORT"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Connects to a host and port and closes again: Ray itself tries for minutes.

    Raises:
        OSError: Nothing answers there within PATIENCE seconds.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _stream(ray: Any, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
    with quiet():
        call = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
        shared = ray.put(function)
    waiting = iter(tasks)
    running: set[object] = set()

    def send(count: int) -> None:
        for _, task in zip(range(count), waiting, strict=False):
            running.add(call.remote(__version__, [shared], task))

    try:
        send(TASKS_FOR_EACH_CORE * _cores(ray))
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            running.discard(done)
            send(1)
            yield cast(Result, _result(ray, done))
    finally:
        for each in running:
            ray.cancel(each, force=True)


def _cores(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _result(ray: Any, reference: object) -> object:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from None
    except ray.exceptions.RayError as error:
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise GhnqError(
            f"a task was run {RETRIES + 1} times on the cluster, and its worker died each time: {line}. Rows that were "
            "made are kept with --out; the same command goes on"
        ) from error


def _call(version: str, shared: list[Any], task: Any) -> object:
    """Runs a task in a worker; the object in the list is read once by each worker."""
    if version != __version__:
        raise GhnqError(
            f"a node of the cluster has ghnq {__version__}, and this process ghnq {version}; install one on all"
        )
    (reference,) = shared
    name = reference.hex()
    if name not in _functions:
        _functions.clear()
        _functions[name] = import_optional("ray").get(reference)
    with one_torch_thread():
        return _functions[name](task)
