"""Two models on ONNX Runtime, timed in the same run, taking turns."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghnq.deploy.onnx import runtime
from ghnq.errors import GhnqError
from ghnq.progress import ProgressCallback

WARM_UP = 5
SECONDS, FEWEST, MOST = 2.0, 20, 1000
"""How many turns there are where nobody says: as many as fit into so many seconds, within these limits."""


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile of the time that one run on one batch takes, in milliseconds."""

    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Of single times in seconds; the percentile is interpolated."""
        median, p95 = (float(value) * 1e3 for value in np.percentile(seconds, (50, 95)))
        return cls(median, p95)


def take_turns(
    first: Any, second: Any, images: Tensor, repeats: int | None, progress: ProgressCallback | None = None
) -> tuple[Latency, Latency, int]:
    """Runs two sessions in turns on the same images [B, C, H, W]; also returns how many turns there were.

    Who begins changes with every turn, so that neither always finds the other's data in the cache. Runs that warm up
    are not counted.

    Raises GhnqError where the runtime cannot run them.
    """
    times: tuple[list[float], list[float]] = ([], [])
    spent = _warmed_up(first, second, images)
    count = repeats or int(min(max(SECONDS / spent, FEWEST), MOST))
    for turn in range(count):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            times[which].append(_timed((first, second)[which], images))
        if progress is not None:
            progress(turn + 1, count)
    return Latency.of(times[0]), Latency.of(times[1]), count


def _warmed_up(first: Any, second: Any, images: Tensor) -> float:
    """The seconds of one turn, once all memory is allocated."""
    try:
        for _ in range(WARM_UP):
            spent = _timed(first, images) + _timed(second, images)
    except Exception as error:
        # The runtime's exceptions have no common base but Exception; what runs once runs again.
        raise GhnqError(f"ONNX Runtime cannot run a batch of {len(images)}: {error}") from error
    return spent


def _timed(session: Any, images: Tensor) -> float:
    start = perf_counter()
    runtime.run(session, images)
    return perf_counter() - start


def some_images(batch: int, shape: tuple[int, ...]) -> Tensor:
    """Normal noise [batch, C, H, W], the same every time: no kernel's time hangs on the values."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
