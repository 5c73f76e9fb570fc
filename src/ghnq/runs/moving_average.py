"""The exponential moving average of figures that progress bars show."""

from __future__ import annotations

SMOOTHING = 0.95


def exponential_average(before: float, now: float) -> float:
    """Returns an exponential moving average that starts at the first value: `before` is NaN then."""
    return now if before != before else SMOOTHING * before + (1 - SMOOTHING) * now
