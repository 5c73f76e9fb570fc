"""The learning rate as a function of the step and of how much of the run is done."""

from __future__ import annotations

import math

from ghnq.training.recipe import Schedule


def rate_factor(schedule: Schedule, *, step: int, progress: float) -> float:
    """Returns the learning rate as a fraction of its peak.

    Args:
        step: Number of the step, from 0.
        progress: How much of the run is done, from 0 to 1.
    """
    warmup = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    progress = min(max(progress, 0.0), 1.0)
    if schedule.name == "step":
        return warmup * schedule.gamma ** sum(progress >= milestone for milestone in schedule.milestones)
    falling = max(0.0, 1 - (1 - progress) / schedule.fall)  # progress within the last part of the run
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * falling)), "linear": 1 - falling, "constant": 1.0}[schedule.name]
    return warmup * (schedule.final + (1 - schedule.final) * shape)
