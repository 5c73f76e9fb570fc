"""Channel counts: multiples of 4, and of 8 from 64 on, so that they vary but suit integer kernels."""

from __future__ import annotations


def round_channels(channels: float) -> int:
    """Returns the nearest channel count of the space, at least 8."""
    step = 4 if channels < 64 else 8
    return max(8, step * round(channels / step))
