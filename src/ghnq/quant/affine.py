"""Uniform affine quantization in float arithmetic with straight-through gradients, for training and evaluation alike.

    q = clamp(round(x / s) + z, qmin, qmax)        x' = (q - z) * s

(Jacob et al. 2018, arXiv 1712.05877, Eq. 1; docs/quantization.md.) `round` is half to even and `x / s` is a true
division, as in ONNX's QuantizeLinear. torch.fake_quantize_* and torchao multiply by 1 / s instead, which differs by
one step at some ties, so they serve as oracles in the tests and not as the implementation.

Scales and zero points are tensors, so nothing here waits for a device: [] for one per tensor, [O] for one per channel
along dimension 0 (where the weights of every convolution and linear layer have their output channels).
"""

from typing import Any, cast

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def integer_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """Smallest and largest integer: signed and narrow where symmetric, else unsigned.

    >>> integer_range(4, symmetric=True), integer_range(4, symmetric=False)
    ((-7, 7), (0, 15))
    """
    if symmetric:
        largest = 2 ** (bits - 1) - 1
        return -largest, largest
    return 0, 2**bits - 1


def scale_zero_point(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point (an integer in the dtype of the range) for low..high, zero included, in `bits` bits.

    A range without width (or narrower than a normal float can divide) gets scale 1, so that zero stays zero and
    nothing is divided by zero. Shapes: low, high, scale and zero point all [] or [O].
    """
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
    """Rounds x to the grid and clamps it; the gradient is 1 inside the clamp and 0 outside (straight-through).

    x any shape, scale and zero_point [] or [O] for x [O, ...]; half-precision x is computed in float32, since bfloat16
    cannot count to 255. No gradient flows to scale and zero point. NaN stays NaN.
    """
    if x.dtype in _HALF:
        return fake_quantize(x.float(), scale, zero_point, smallest, largest).to(x.dtype)
    scale, zero_point = along_channels(scale, x), along_channels(zero_point, x)
    below, above = smallest - zero_point, largest - zero_point
    return cast(Tensor, _StraightThrough.apply(x, scale, below, above))  # type: ignore[no-untyped-call]


def encode(x: Tensor, scale: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """The integers q of x, int32, same shape as x; scale and zero_point as in `fake_quantize`."""
    scale, zero_point = along_channels(scale, x), along_channels(zero_point, x)
    return (x / scale).round_().add_(zero_point).clamp_(smallest, largest).to(torch.int32)


def decode(q: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The real values (q - z) * s of integers q, in the dtype of the scale."""
    scale, zero_point = along_channels(scale, q), along_channels(zero_point, q)
    return (q - zero_point).to(scale.dtype) * scale


def along_channels(values: Tensor, x: Tensor) -> Tensor:
    """Reshapes [O] to [O, 1, ...] with the dimensions of x; leaves [] alone."""
    return values if values.dim() == 0 else values.reshape(-1, *[1] * (x.dim() - 1))


class _StraightThrough(torch.autograd.Function):
    """Grid rounding with the clamp already shifted by the zero point: clamp(round(x / s), qmin - z, qmax - z) * s.

    The integers are exact in float, so this equals the textbook form bit for bit and saves two passes over x.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, below: Tensor, above: Tensor) -> Tensor:
        # In place: memory never touched before costs more than the arithmetic. Not clamp_: with bounds that are tensors
        # it takes longer than all the rest.
        return (x / scale).round_().clamp_min_(below).clamp_max_(above).mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # x is usually kept by the layer before anyway, so the mask is made from it in the backward pass.
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, scale, below, above = ctx.saved_tensors
        steps = (x / scale).round_()
        return grads[0] * ((steps >= below) & (steps <= above)), None, None, None
