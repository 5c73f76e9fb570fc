"""Channel counts: multiples of 4, of 8 from 64 on, so that they are varied but suit integer kernels."""

from __future__ import annotations


def rounded(channels: float) -> int:
    """Rounds to the space's grid of channel counts, at least 8."""
    step = 4 if channels < 64 else 8
    return max(8, step * round(channels / step))
