"""The learning rate as a function of the step and of how much of the run is done."""

from __future__ import annotations

import math

from ghnq.training.run.recipe import Schedule


def rate_factor(schedule: Schedule, *, step: int, progress: float) -> float:
    """Learning rate over its peak. step counts from 0; progress is in [0, 1]."""
    warm = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    progress = min(max(progress, 0.0), 1.0)
    falling = max(0.0, 1 - (1 - progress) / schedule.fall)  # progress within the part of the run where the rate falls
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * falling)), "linear": 1 - falling, "constant": 1.0}[schedule.name]
    return warm * (schedule.final + (1 - schedule.final) * shape)
