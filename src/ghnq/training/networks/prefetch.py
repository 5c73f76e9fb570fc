"""Preparation of the next steps in a thread, while the device computes the current one.

A thread and not a process, because modules would have to be built again in the process that uses them, which is half of
the work, and a host that waits for its device releases Python's lock. Networks on the CPU gain nothing: the core that
would prepare them is the one that trains.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Computes `make(step)` for consecutive steps, up to `depth` steps in advance.

    Args:
        make: Called from one thread only, in the order of the steps; its exceptions are raised where the step is used.
        depth: Number of steps in advance; 0 computes each step when it is used.
    """

    def __init__(self, make: Callable[[int], T], depth: int) -> None:
        self.make, self.depth = make, depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch") if depth else None
        self._pending: OrderedDict[int, Future[T]] = OrderedDict()

    def __call__(self, step: int) -> T:
        if self._thread is None:
            return self.make(step)
        if step not in self._pending:  # the first step, or steps were skipped
            self._cancel()
        for future_step in range(step, step + 1 + self.depth):
            if future_step not in self._pending:
                self._pending[future_step] = self._thread.submit(self.make, future_step)
        return self._pending.pop(step).result()

    def close(self) -> None:
        """Ends the thread after the step that it computes."""
        self._cancel()
        if self._thread is not None:
            self._thread.shutdown()

    def _cancel(self) -> None:
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()
