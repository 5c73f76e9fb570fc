"""Ranges of least squared error, found roughly and fast: what a training step puts where deployment searches.

At 2 bits a min-max range wastes the grid on outliers. `ghnq.quant.ranges` searches thoroughly, once; a step has a
millisecond. So weights start from one scale and are refitted a few times, and activations are searched on a sample.

Dimensions: O output channels, V values of a sample, F tried fractions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ghnq.quant.affine import integer_range, scale_zero_point

MOST_BITS = 4
"""Above this, min-max is as good."""

START = {2: 0.5, 3: 0.8, 4: 0.95}
"""Fraction of the min-max scale to fit from, by bits: about the best for normal values."""
FITS = 3
FRACTIONS = torch.arange(4, 33, 2).div(32)
"""Of the min-max range, tried for activations: 1/8 to 1."""
SAMPLE = 4096


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """Symmetric scale [O] of a weight [O, ...], at most MOST_BITS: Lloyd's alternation from one start.

    For integers q the best scale is <w, q> / <q, q>, and for a scale the nearest integers are the best.
    """
    rows = weight.detach().flatten(1)
    largest = rows.abs().amax(1)
    smallest, levels = integer_range(bits, True)
    scale, _ = scale_zero_point(-largest, largest, bits, True)
    scale = scale * START[bits]
    for _ in range(FITS):
        q = torch.div(rows, scale[:, None]).round_().clamp_(smallest, levels)
        inner, square = torch.linalg.vecdot(rows, q), torch.linalg.vecdot(q, q)
        scale = torch.where(square > 0, inner / square.clamp(min=1), scale)
    return scale


def activation_grid(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Step and zero point, both [], of the best of FRACTIONS of the values' range, at most MOST_BITS.

    values: of any shape, in the order of memory; an even sample of about SAMPLE of them is looked at, and all for the
    range itself.
    """
    low, high = values.aminmax()
    sample = values.flatten()[:: _stride(values.numel())]
    fractions = FRACTIONS.to(sample)
    steps, zero_points = scale_zero_point(low * fractions, high * fractions, bits, False)  # [F]
    scale, zero = steps[:, None], zero_points[:, None]
    on_grid = torch.div(sample, scale).round_()
    on_grid = torch.maximum(torch.minimum(on_grid, 2**bits - 1 - zero), -zero).mul_(scale)  # [F, V]
    best = (on_grid - sample).square_().mean(1).argmin()
    return steps[best], zero_points[best]


def _stride(count: int) -> int:
    """Without a factor in common with the count, so that every channel and column is looked at."""
    stride = max(1, count // SAMPLE)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride
