"""What the coming steps need, made by a thread while the device is busy with this one.

A thread and not a process: the modules would have to be built again where they are used, which is half of the work, and
a host that waits for its device leaves Python's lock to others. Where networks run on the CPU, the core that would
prepare is the core that trains, and nothing is gained.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """`make(step)` for one step after another, up to `depth` steps before they are asked for; depth 0: when asked for.

    make: called from one thread only, in the order of the steps; what it raises is raised where the step is asked for.
    """

    def __init__(self, make: Callable[[int], T], depth: int) -> None:
        self.make, self.depth = make, depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead") if depth else None
        self._coming: OrderedDict[int, Future[T]] = OrderedDict()

    def __call__(self, step: int) -> T:
        if self._thread is None:
            return self.make(step)
        if step not in self._coming:  # the first, or after a jump
            self._drop()
        for coming in range(step, step + 1 + self.depth):
            if coming not in self._coming:
                self._coming[coming] = self._thread.submit(self.make, coming)
        return self._coming.pop(step).result()

    def close(self) -> None:
        """Ends the thread; what it has begun it finishes."""
        self._drop()
        if self._thread is not None:
            self._thread.shutdown()

    def _drop(self) -> None:
        for future in self._coming.values():
            future.cancel()
        self._coming.clear()
