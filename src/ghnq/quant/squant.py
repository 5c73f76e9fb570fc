"""SQuant: data-free rounding whose errors cancel within each kernel and each output channel.

Guo et al. 2022, arXiv 2202.07471, Eq. 8 and Algorithms 1 to 4. Rounding to nearest makes each error small, but the
error of a convolution's output depends on their sum. If the sum over a kernel exceeds half a quantization step, the
elements that are nearest to a tie are rounded the other way; then the same with the kernels of an output channel.

Dimensions: O output channels, I input channels of a group, K positions of a kernel. Errors are in quantization steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ghnq.quant.affine import along_channels


@torch.no_grad()
def squant(weight: Tensor, scale: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """Returns the quantized and dequantized weight, same shape.

    If nothing is clamped, the errors (integer minus exact value) sum to at most half a step over each output channel
    and one step over each kernel, and each weight is at most one step off. Clamped weights are not rounded otherwise,
    and their errors, which are too large to be compensated, are not counted.

    Args:
        weight: [O, I, ...] or [O, I].
        scale: [O] or [].
        zero_point: Same shape as the scale.
        smallest: Smallest integer.
        largest: Largest integer.
    """
    scale, zero_point = along_channels(scale, weight), along_channels(zero_point, weight)
    exact = weight / scale + zero_point
    exact_OIK = exact.flatten(2) if weight.dim() > 2 else exact[..., None]
    q_OIK = exact_OIK.round().clamp_(smallest, largest)
    free_OIK = (exact_OIK >= smallest) & (exact_OIK <= largest)
    if exact_OIK.shape[2] > 1:
        q_OIK = q_OIK - _flips(torch.where(free_OIK, q_OIK - exact_OIK, 0.0), free_OIK)
    q_OIK = q_OIK - _kernel_flips(torch.where(free_OIK, q_OIK - exact_OIK, 0.0), free_OIK)
    return (q_OIK.reshape(weight.shape) - zero_point) * scale


def _flips(error: Tensor, free: Tensor) -> Tensor:
    """Returns what to subtract from the integers of the last dimension so that their errors sum to at most a half.

    The sum determines both how many elements are changed and the sign. An element is changed only against the sign of
    its own error, so that it stays less than a step from its exact value.

    Args:
        error: [..., N].
        free: Whether an element may be changed, [..., N].

    Returns:
        -1, 0 or 1, [..., N].
    """
    total = error.sum(dim=-1, keepdim=True)
    sign = total.sign()
    gain = torch.where(free, error * sign, -1.0)
    order = gain.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1, stable=True)
    # Rounding half to even: a total of 1.5 gives 2 changes, 0.5 gives none; what is left is a half in both cases.
    chosen = (rank < total.abs().round()) & (gain > 0)
    return chosen * sign


def _kernel_flips(error_OIK: Tensor, free_OIK: Tensor) -> Tensor:
    """Applies `_flips` to the kernels of each output channel; in each chosen kernel one element changes."""
    kernels_OI = error_OIK.sum(dim=2)
    sign_O1 = kernels_OI.sum(dim=1, keepdim=True).sign()
    gain_OIK = torch.where(free_OIK, error_OIK * sign_O1[..., None], -1.0)
    best = gain_OIK.max(dim=2)
    flips_OI = _flips(kernels_OI, best.values > 0)
    return torch.zeros_like(error_OIK).scatter_(2, best.indices[..., None], flips_OI[..., None])
