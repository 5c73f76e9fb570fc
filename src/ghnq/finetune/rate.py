"""The learning rate, by a range test (Smith 2017, arXiv 1506.01186): a few steps at rising rates, then back.

The rate rises geometrically from step to step. Below the right one the loss hardly falls; far above, it explodes. The
peak of the schedule becomes a fixed part of the rate at which the smoothed loss is least.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from ghnq.finetune.learner import Learner

LOWEST, HIGHEST = 1e-3, 2.0
STEPS = 60
FRACTION_OF_BEST = 1.0
"""The rate, as a part of the rate of least loss in the test."""
FALLBACK = 0.05
"""The rate where the budget is too small for a test."""
_SMOOTHING = 0.8
_EXPLODED = 1.5  # times the least loss


@dataclass(frozen=True, slots=True)
class RangeTest:
    """The result of a range test.

    Attributes:
        lr: The rate found.
        step_seconds: Time of a step, median.
        steps: Steps made.
    """

    lr: float
    step_seconds: float
    steps: int


def find_rate(learner: Learner, *, max_seconds: float | None) -> RangeTest:
    """Finds the rate; the learner is left as it was.

    Args:
        max_seconds: If so many seconds are not enough for the test, the rate is FALLBACK. None: no limit.
    """
    before = learner.snapshot()
    rates = [LOWEST * (HIGHEST / LOWEST) ** (i / (STEPS - 1)) for i in range(STEPS)]
    smoothed, least, best, seconds, enough = 0.0, math.inf, FALLBACK, [], True
    for number, lr in enumerate(rates):
        start = time.perf_counter()
        report = learner.step(number, lr)
        seconds.append(time.perf_counter() - start)
        if max_seconds is not None and learner.group.world_size == 1 and number == 2:
            enough = min(seconds) * STEPS <= max_seconds
            if not enough:
                break
        if not report.finite:
            break
        smoothed = _SMOOTHING * smoothed + (1 - _SMOOTHING) * report.loss
        loss = smoothed / (1 - _SMOOTHING ** (number + 1))
        if loss < least:
            least, best = loss, lr
        elif loss > _EXPLODED * least:
            break
    learner.restore(before)
    lr = FRACTION_OF_BEST * best if enough else FALLBACK
    return RangeTest(lr, sorted(seconds)[len(seconds) // 2], len(seconds))


def measure_step(learner: Learner, steps: int = 6) -> float:
    """Returns the median time of a step, seconds; the learner is left as it was."""
    before, seconds = learner.snapshot(), []
    for number in range(steps):
        start = time.perf_counter()
        learner.step(number, 0.0)
        seconds.append(time.perf_counter() - start)
    learner.restore(before)
    return sorted(seconds)[steps // 2]
