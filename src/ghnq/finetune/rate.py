"""The learning rate: by a range test, and for predicted weights by the budget.

The range test (Smith 2017, arXiv 1506.01186) makes a few steps at rising rates, then goes back. The rate rises
geometrically from step to step. Below the right one the loss hardly falls; far above, it explodes. The peak of the
schedule becomes a fixed part of the rate at which the smoothed loss is least.

Predicted weights on the images they were predicted for are near a minimum, which rates worth training at leave at
first: a test of few steps finds rates that are right for few steps, or, on few images, those that learn these by
heart. How far predicted weights should go grows with the budget (docs/results/finetuning.md, section on rates).
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
PREDICTED_RATE, PREDICTED_IMAGES, PREDICTED_HIGHEST = 0.1, 45_000, 0.2
"""The rate of predicted weights for a budget of that many images, in proportion to it, and its limit."""
PREDICTED_BATCH = 128
"""Images of a step for which these rates hold; others have them in proportion (Goyal et al. 2017, arXiv 1706.02677)."""
_SMOOTHING = 0.8
_EXPLODED = 1.5  # times the least loss


@dataclass(frozen=True, slots=True)
class RangeTest:
    """The result of a range test.

    Attributes:
        lr: The rate found.
        step_seconds: Time of a step, median.
        steps: Steps made.
        enough: Whether there was time for the test; else `lr` is FALLBACK.
    """

    lr: float
    step_seconds: float
    steps: int
    enough: bool


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
    return RangeTest(lr, sorted(seconds)[len(seconds) // 2], len(seconds), enough)


def rate_of_predicted(steps: int, batch_size: int, test: RangeTest | None = None) -> float:
    """Returns the peak of the learning rate for rescaled predicted weights and a budget of steps.

    Args:
        test: Where the head was solved, so that the weights are no minimum; the larger rate of the two counts.
    """
    rate = min(PREDICTED_RATE * steps * batch_size / PREDICTED_IMAGES, PREDICTED_HIGHEST) * batch_size / PREDICTED_BATCH
    return max(rate, test.lr) if test is not None and test.enough else rate


def measure_step(learner: Learner, steps: int = 6) -> float:
    """Returns the median time of a step, seconds; the learner is left as it was."""
    before, seconds = learner.snapshot(), []
    for number in range(steps):
        start = time.perf_counter()
        learner.step(number, 0.0)
        seconds.append(time.perf_counter() - start)
    learner.restore(before)
    return sorted(seconds)[steps // 2]
