"""The normalisation of predicted parameters (GHN-2, arXiv 2110.13100, section 4.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ghnq.graph.ir import Shape


def weight_gain(shape: Shape) -> float:
    """Returns sqrt(beta / fan_in), by which a weight of a shape is multiplied.

    beta is 2, or 1 for depthwise weights and for kernels narrower in height than in width.
    """
    fan_in = math.prod(shape[1:])
    no_relu = len(shape) > 2 and (shape[1] == 1 or (len(shape) == 4 and shape[2] < shape[3]))
    return math.sqrt((1.0 if no_relu else 2.0) / fan_in)


def bounded_scale(tensor: Tensor) -> Tensor:
    """Returns scales of norms in (0, 2): 2 sigmoid(x / 2)."""
    return 2 * torch.sigmoid(0.5 * tensor)


def bounded_shift(tensor: Tensor) -> Tensor:
    """Returns shifts of norms, or biases, in (-1, 1): tanh(x / 5)."""
    return torch.tanh(0.2 * tensor)
