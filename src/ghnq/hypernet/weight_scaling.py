"""From what a decoder gives to what the network takes: tile to the shape, then normalise (GHN-2, section 4.3).

Dimensions: S slots of one group, all of one shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
