"""The latency of two models on ONNX Runtime, measured in alternation.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from ghnq.deploy.onnx import runtime
from ghnq.errors import GhnqError
from ghnq.progress import ProgressCallback

WARM_UP = 5
"""Runs before the timed ones."""
SECONDS, FEWEST, MOST = 2.0, 20, 1000
"""How many timed runs there are by default: as many as fit into so many seconds, within these limits."""


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile of the time that one run on one batch takes, in milliseconds."""

    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Returns the latency of single times in seconds; the percentile is interpolated."""
        median, p95 = (float(value) * 1e3 for value in np.percentile(seconds, (50, 95)))
        return cls(median, p95)


def measure_latencies(
    first: runtime.Session,
    second: runtime.Session,
    images: Tensor,
    repeats: int | None,
    progress: ProgressCallback | None = None,
) -> tuple[Latency, Latency, int]:
    """Runs two sessions alternately on the same images [B, C, H, W].

    Which of them begins changes with every repeat, so that neither always finds the other's data in the cache.

    Args:
        repeats: Timed runs of each; None chooses a number.
        progress: Called with the number of timed runs of each.

    Returns:
        Both latencies, and the number of timed runs of each.

    Raises:
        GhnqError: The runtime cannot run a batch of this size.
    """
    sessions = (first, second)
    seconds: tuple[list[float], list[float]] = ([], [])
    spent = _warm_up(first, second, images)
    count = repeats or int(min(max(SECONDS / spent, FEWEST), MOST))
    for repeat in range(count):
        for index in (0, 1) if repeat % 2 == 0 else (1, 0):
            seconds[index].append(_time(sessions[index], images))
        if progress is not None:
            progress(repeat + 1, count)
    return Latency.of(seconds[0]), Latency.of(seconds[1]), count


def _warm_up(first: runtime.Session, second: runtime.Session, images: Tensor) -> float:
    """Runs both a few times, so that all memory is allocated; returns the seconds of the last run of both."""
    try:
        for _ in range(WARM_UP):
            spent = _time(first, images) + _time(second, images)
    except Exception as error:
        # The runtime's exceptions have no common base but Exception. What runs once will run again.
        raise GhnqError(f"ONNX Runtime cannot run a batch of {len(images)}: {error}") from error
    return spent


def _time(session: runtime.Session, images: Tensor) -> float:
    start = perf_counter()
    runtime.run(session, images)
    return perf_counter() - start


def random_images(batch: int, shape: tuple[int, ...]) -> Tensor:
    """Returns normal noise [batch, C, H, W], the same in every call; the time of a kernel does not depend on values."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
