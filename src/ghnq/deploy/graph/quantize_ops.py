"""The two functions that a quantized graph adds: real values to integers, and back.

They are nodes of the graph, computed in float, with the definitions of `ghnq.quant.affine`: a true division, ties to
even. An integer runtime fuses each chain dequantize - operator - quantize into one integer kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from ghnq.deploy.graph.rewriter import node_argument
from ghnq.deploy.graph.supported_ops import aten
from ghnq.quant.affine import decode, encode


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """Returns the integers of x, int32, same shape; scale and zero point are []."""
    return encode(x, scale, zero_point, smallest, largest)


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor, axis: int = 0) -> Tensor:
    """Returns the real values (q - z) * s, float32, same shape as q; scale, zero point: [], or [O] along `axis`."""
    # Narrow integers would wrap around in the subtraction.
    wide = q.to(torch.int32)
    return (
        decode(wide.transpose(0, axis), scale, zero_point).transpose(0, axis)
        if axis
        else decode(wide, scale, zero_point)
    )


def is_quantized(node: fx.Node) -> bool:
    """Returns whether a node is a `quantize`, or the clip that limits its result to a grid of fewer bits."""
    if node.target is quantize:
        return True
    return node.target is aten.clamp.default and node_argument(node).target is quantize


def quantize_node(integers: fx.Node) -> fx.Node:
    """Returns the `quantize` that makes integers, given that or the clip behind it."""
    return integers if integers.target is quantize else node_argument(integers)


def largest_integer(quantizer: fx.Node) -> int:
    """Returns the largest integer of the grid of a `quantize` node, which a clip behind it may lower."""
    clips = [user.args[2] for user in quantizer.users if user.target is aten.clamp.default]
    return int(min([quantizer.args[4], *clips]))  # type: ignore[type-var, arg-type]
