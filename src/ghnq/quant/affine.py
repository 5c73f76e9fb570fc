"""Uniform affine quantization in float arithmetic with straight-through gradients, for training and evaluation.

    q = clamp(round(x / s) + z, qmin, qmax)        x' = (q - z) * s

(Jacob et al. 2018, arXiv 1712.05877, Eq. 1.) `round` rounds half to even and `x / s` is a true division, as in ONNX's
QuantizeLinear. torch.fake_quantize_* and torchao multiply by 1 / s instead, which gives another integer at some ties;
the tests use them as oracles.

Scales and zero points are tensors, so that no operation synchronises with a device: [] for one per tensor, [O] for one
per output channel, which is dimension 0 of the weight of every convolution and linear layer.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

_HALF_PRECISION = (torch.float16, torch.bfloat16)


def integer_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """Returns the smallest and the largest integer: of the signed narrow range if symmetric, else unsigned.

    >>> integer_range(4, symmetric=True), integer_range(4, symmetric=False)
    ((-7, 7), (0, 15))
    """
    if symmetric:
        largest = 2 ** (bits - 1) - 1
        return -largest, largest
    return 0, 2**bits - 1


def scale_zero_point(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Returns the scale and the zero point for a range, which is extended to include zero.

    A range of width 0 (or so narrow that its scale would not be a normal float) gets scale 1, so that zero remains
    zero and nothing is divided by zero.

    Args:
        low: Smallest real value, [] or [O].
        high: Largest real value, same shape.
        bits: Bit-width of the integers.
        symmetric: Whether the range is symmetric around zero, with zero point 0.

    Returns:
        The scale and the zero point, same shape; the zero point is an integer in the dtype of the range, or in float32
        if that is float16 or bfloat16, in which small scales are no normal numbers.
    """
    if low.dtype in _HALF_PRECISION:
        low, high = low.float(), high.float()
    smallest, largest = integer_range(bits, symmetric)
    if symmetric:
        scale = _safe_scale(torch.maximum(-low, high) / largest)
        return scale, torch.zeros_like(scale)
    low = low.clamp(max=0)
    scale = _safe_scale((high.clamp(min=0) - low) / (largest - smallest))
    # -low / scale lies in 0..largest up to rounding; the clamp keeps it there.
    return scale, (-low / scale).round_().clamp(smallest, largest)


def _safe_scale(scale: Tensor) -> Tensor:
    return torch.where(scale >= torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """Quantizes and dequantizes x; the gradient is 1 where x is not clamped and 0 elsewhere (straight-through).

    Scale and zero point get no gradient. NaN remains NaN. Half precision is computed in float32, because bfloat16 does
    not represent all integers up to 255.

    Args:
        x: Any shape; [O, ...] if the scale is per channel.
        scale: [] or [O].
        zero_point: Same shape as the scale.
        smallest: Smallest integer.
        largest: Largest integer.
    """
    if x.dtype in _HALF_PRECISION:
        return fake_quantize(x.float(), scale, zero_point, smallest, largest).to(x.dtype)
    scale, zero_point = along_channels(scale, x), along_channels(zero_point, x)
    below, above = smallest - zero_point, largest - zero_point
    return cast(Tensor, _StraightThrough.apply(x, scale, below, above))  # type: ignore[no-untyped-call]


def encode(x: Tensor, scale: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """Returns the integers q of x, int32, same shape as x; the other arguments are those of `fake_quantize`."""
    if x.dtype in _HALF_PRECISION:
        x = x.float()
    scale, zero_point = along_channels(scale, x), along_channels(zero_point, x)
    return (x / scale).round_().add_(zero_point).clamp_(smallest, largest).to(torch.int32)


def decode(q: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Returns the real values (q - z) * s of integers q, in the dtype of the scale."""
    scale, zero_point = along_channels(scale, q), along_channels(zero_point, q)
    return (q - zero_point).to(scale.dtype) * scale


def along_channels(values: Tensor, x: Tensor) -> Tensor:
    """Reshapes [O] to [O, 1, ...] with as many dimensions as x; returns [], or what has as many, as it is."""
    return values if values.dim() in (0, x.dim()) else values.reshape(-1, *[1] * (x.dim() - 1))


class _Context(Protocol):
    """The part of the context of an autograd function that is used here."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Saves tensors for the backward pass."""


class _StraightThrough(torch.autograd.Function):
    """Fake quantization with limits less the zero point: clamp(round(x / s), qmin - z, qmax - z) * s.

    The integers are exact in float, so this equals the form above bit for bit and saves two passes over x.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, below: Tensor, above: Tensor) -> Tensor:
        # In place, because writing to newly allocated memory costs more than the arithmetic. Not clamp_, which with
        # tensors as limits takes longer than everything else.
        return (x / scale).round_().clamp_min_(below).clamp_max_(above).mul_(scale)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # The previous layer usually saves x anyway, so the mask is computed from it in the backward pass.
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, scale, below, above = ctx.saved_tensors
        rounded = (x / scale).round_()
        return grads[0] * ((rounded >= below) & (rounded <= above)), None, None, None
