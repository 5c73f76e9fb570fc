"""Rounding that learns nothing: errors that cancel within each kernel and each output channel.

SQuant (Guo et al. 2022, arXiv 2202.07471, Eq. 8 and Algorithms 1 to 4). Rounding to the nearest makes every single
error small, but what a convolution adds up is their sum. Where the sum over a kernel exceeds half a step, the elements
that were nearest to a tie are rounded the other way; then the same with kernels over an output channel.

Dimensions: O output channels, I input channels of a group, K positions of a kernel.
"""

import torch
from torch import Tensor

from ghnq.quant.affine import along_channels


@torch.no_grad()
def squant(weight: Tensor, scale: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """Rounds a weight [O, I, ...] or [O, I] to its grid; returns the real values of the integers, same shape.

    scale, zero_point: [O] or []. Where nothing is clipped, the errors (integer minus exact value, in steps) sum to at
    most half a step over each output channel and one step over each kernel, and each weight is at most one step off.
    Clipped weights keep their value and their errors are not counted: they are too large to be made up for.
    """
    scale, shift = along_channels(scale, weight), along_channels(zero_point, weight)
    exact = (weight / scale + shift).flatten(2) if weight.dim() > 2 else (weight / scale + shift)[..., None]
    q = exact.round().clamp_(smallest, largest)
    free = (exact >= smallest) & (exact <= largest)
    if exact.shape[2] > 1:
        q = q - _flips(torch.where(free, q - exact, 0.0), free)
    q = q - _flip_kernels(torch.where(free, q - exact, 0.0), free)
    return (q.reshape(weight.shape) - shift) * scale


def _flips(error: Tensor, free: Tensor) -> Tensor:
    """Steps (-1, 0, 1) to take off the elements of the last dimension so that their errors sum to at most a half.

    error [..., n] in steps, free [..., n]; both the number of flips and their sign come from the sum. An element may be
    flipped only against the sign of its own error, so that it stays less than a step from its exact value.
    """
    total = error.sum(dim=-1, keepdim=True)
    sign = total.sign()
    gain = torch.where(free, error * sign, -1.0)
    order = gain.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1, stable=True)
    # Half to even would leave 1.5 at 2 flips and 0.5 at none: both within a half.
    chosen = (rank < total.abs().round()) & (gain > 0)
    return chosen * sign


def _flip_kernels(error: Tensor, free: Tensor) -> Tensor:
    """As `_flips` over the kernels [O, I, K] of each output channel: one element of each chosen kernel moves."""
    kernels = error.sum(dim=2)
    sign = kernels.sum(dim=1, keepdim=True).sign()
    gain = torch.where(free, error * sign[..., None], -1.0)
    best = gain.max(dim=2)
    moves = _flips(kernels, best.values > 0)
    return torch.zeros_like(error).scatter_(2, best.indices[..., None], moves[..., None])
