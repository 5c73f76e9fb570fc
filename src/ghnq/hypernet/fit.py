"""From what a decoder gives to what the network takes: tile to the shape, then normalise (GHN-2, section 4.3).

Dimensions: S slots of one group, all of one shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ghnq.graph.ir import Shape


def tile(tensor: Tensor, shape: Shape) -> Tensor:
    """Repeats [S, ...] along every dimension that is too short and cuts what is too long; returns [S, *shape].

    Any size is reached, also one that divides nothing: the last repetition is cut.
    """
    repeats = [-(-want // have) for want, have in zip(shape, tensor.shape[1:], strict=True)]
    if any(r > 1 for r in repeats):
        tensor = tensor.repeat(1, *repeats)
    if tensor.shape[1:] != shape:
        tensor = tensor[(slice(None), *(slice(0, s) for s in shape))]
    return tensor


def weight_gain(shape: Shape) -> float:
    """sqrt(beta / fan_in): beta is 2, or 1 for depthwise weights and for kernels narrower in height than in width."""
    fan_in = math.prod(shape[1:])
    no_relu = len(shape) > 2 and (shape[1] == 1 or (len(shape) == 4 and shape[2] < shape[3]))
    return math.sqrt((1.0 if no_relu else 2.0) / fan_in)


def norm_scale(tensor: Tensor) -> Tensor:
    """The scale of a norm, squashed into (0, 2)."""
    return 2 * torch.sigmoid(0.5 * tensor)


def shift(tensor: Tensor) -> Tensor:
    """The shift of a norm, or a bias, squashed into (-1, 1)."""
    return torch.tanh(0.2 * tensor)


def lay_out(weight: Tensor, gain: float) -> Tensor:
    """gain * weight, [S, O, I, K, K], stored so that each kernel of the stack is channels-last.

    Convolutions on a CPU run fastest with that layout. One step of autograd instead of four, since every group has it.
    """
    return torch.as_tensor(_LayOut.apply(weight, gain))  # type: ignore[no-untyped-call]


class _LayOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, gain: float) -> Tensor:
        ctx.gain = gain
        source = weight.permute(0, 1, 3, 4, 2)
        stored = torch.empty(source.shape, dtype=weight.dtype, device=weight.device)
        return torch.mul(source, gain, out=stored).permute(0, 1, 4, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.gain, None
