"""The learning rate over a run, and how long the run is.

One cycle (Smith and Topin 2018, arXiv 1708.07120): the rate rises for a fifth of the run and then falls to almost zero
along a cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RISE = 0.2
"""Part of the run in which the rate rises."""
FIRST, LAST = 0.1, 0.001
"""The rate at the beginning and at the end, as parts of the peak."""


def one_cycle(progress: float) -> float:
    """Returns the rate as a part of its peak; `progress` is the part of the run that is done, 0 to 1."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < RISE:
        return FIRST + (1 - FIRST) * progress / RISE
    return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * (progress - RISE) / (1 - RISE)))


@dataclass(slots=True)
class Plan:
    """How many steps a run has. A budget of time is translated into steps, which are corrected as they are measured.

    Attributes:
        total: Number of steps.
        since: Step of the last correction.
        done: Part of the run that was done then, 0 to 1.
    """

    total: int
    since: int = 0
    done: float = 0.0

    def progress(self, step: int) -> float:
        """Returns the part of the run that is done before a step, 0 to 1; corrections cause no jump."""
        if step >= self.total:
            return 1.0
        return self.done + (1 - self.done) * (step - self.since) / (self.total - self.since)

    def corrected(self, step: int, total: int) -> Plan:
        """Returns the plan with another number of steps from `step` on."""
        return Plan(max(total, step + 1), step, self.progress(step))


def steps_within(seconds: float, step_seconds: float) -> int:
    """Returns how many steps fit into a time, at least one."""
    return max(1, int(seconds / max(step_seconds, 1e-9)))
