"""Approximate ranges of least squared error, for training steps; deployment searches for them thoroughly.

At 2 bits a min-max range is determined by outliers. `ghnq.quant.ranges` searches once for each network; a training step
has a millisecond. So weight scales are refitted a few times from one start, and activation ranges use a sample.

Dimensions: O output channels, N weights of a channel, V values of a sample, F tried fractions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ghnq.quant.affine import integer_range, scale_zero_point

MAX_BITS = 4
"""With more bits, min-max ranges are as good."""

INITIAL_FRACTION = {2: 0.5, 3: 0.8, 4: 0.95}
"""Fraction of the min-max scale that the fit starts from, by bits: close to the best for normal values."""
ITERATIONS = 3
TRIED_FRACTIONS = torch.arange(4, 33, 2).div(32)
"""Fractions of the min-max range that are tried for activations: 1/8 to 1."""
SAMPLE = 4096


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """Returns the symmetric scale [O] of a weight [O, ...] at up to MAX_BITS bits, by Lloyd's alternation.

    For given integers q the best scale is <w, q> / <q, q>; for a given scale the nearest integers are the best.
    """
    rows = weight.detach().flatten(1)
    largest = rows.abs().amax(1)
    smallest, levels = integer_range(bits, True)
    scale, _ = scale_zero_point(-largest, largest, bits, True)
    scale = scale * INITIAL_FRACTION[bits]
    for _ in range(ITERATIONS):
        q = torch.div(rows, scale[:, None]).round_().clamp_(smallest, levels)
        inner, square = torch.linalg.vecdot(rows, q), torch.linalg.vecdot(q, q)
        scale = torch.where(square > 0, inner / square.clamp(min=1), scale)
    return scale


def activation_qparams(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Returns scale and zero point, both [], of the best of TRIED_FRACTIONS of the range, at up to MAX_BITS bits.

    Args:
        values: Any shape, contiguous in memory. The error is measured on about SAMPLE evenly spaced values.
    """
    low, high = values.aminmax()
    sample = values.flatten()[:: _stride(values.numel())]
    fractions = TRIED_FRACTIONS.to(sample)
    steps, zero_points = scale_zero_point(low * fractions, high * fractions, bits, False)  # [F]
    scale, zero = steps[:, None], zero_points[:, None]
    rounded = torch.div(sample, scale).round_()
    rounded = torch.maximum(torch.minimum(rounded, 2**bits - 1 - zero), -zero).mul_(scale)  # [F, V]
    best = (rounded - sample).square_().mean(1).argmin()
    return steps[best], zero_points[best]


def _stride(count: int) -> int:
    """Returns a stride without a common factor with the count, so that every channel and column is sampled."""
    stride = max(1, count // SAMPLE)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride
