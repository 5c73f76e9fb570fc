"""The operators of a deployed graph: which ATen functions it may have, and how an integer runtime computes each.

Everything that torch.export gives is decomposed into these (`decompositions.py`); the writers, the readers and the
placement of quantizers know no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import fx

aten = torch.ops.aten

Kind = Literal["layer", "integer", "same_grid", "clip", "float"]
"""How an operator is computed in a quantized network.

layer: A convolution or linear layer; has an integer kernel if weight and input are quantized (transposed
    convolutions: not in the runtimes used here).
integer: Has an integer kernel whose inputs and outputs are integers, each with its own scale.
same_grid: Only moves or selects values, so input and output share one grid.
clip: Limits values; redundant in front of a grid that ends at its limits.
float: Computed in float, between a dequantization and a quantization.
"""

KINDS: dict[Callable[..., object] | str, Kind] = {
    aten.conv2d.default: "layer",
    aten.conv_transpose2d.input: "layer",
    aten.linear.default: "layer",
    aten.add.Tensor: "integer",
    aten.mul.Tensor: "integer",
    aten.cat.default: "integer",
    aten.avg_pool2d.default: "integer",
    aten.mean.dim: "integer",
    aten.sigmoid.default: "integer",
    aten.leaky_relu.default: "integer",
    aten.max_pool2d.default: "same_grid",
    aten.reflection_pad2d.default: "same_grid",
    aten.replication_pad2d.default: "same_grid",
    aten.upsample_nearest2d.vec: "same_grid",
    aten.reshape.default: "same_grid",
    aten.permute.default: "same_grid",
    aten.slice.Tensor: "same_grid",
    aten.relu.default: "clip",
    aten.clamp.default: "clip",
    aten.batch_norm.default: "float",
    aten.layer_norm.default: "float",
    aten.instance_norm.default: "float",
    aten.upsample_bilinear2d.vec: "float",
    aten.sub.Tensor: "float",
    aten.div.Tensor: "float",
    aten.matmul.default: "float",
    aten.softmax.int: "float",
    aten.gelu.default: "float",
    aten.hardsigmoid.default: "float",
    aten.hardswish.default: "float",
    aten.tanh.default: "float",
    aten.elu.default: "float",
    aten.constant_pad_nd.default: "float",
}

LAYERS = tuple(target for target, kind in KINDS.items() if kind == "layer")
"""Convolutions and linear layers."""


def weight_axis(node: fx.Node) -> tuple[int, ...]:
    """Returns the dimension of a layer's weight along which its scales are, if it is not the first."""
    return (1,) if node.target is aten.conv_transpose2d.input else ()


def layer_groups(node: fx.Node) -> int:
    """Returns how many output channels of a layer share one scale: the groups of a transposed convolution, else 1."""
    groups = node.args[6] if node.target is aten.conv_transpose2d.input else 1
    assert isinstance(groups, int)
    return groups


def kind_of(node: fx.Node) -> Kind:
    """Returns the kind of a call; arithmetic with a constant, and means over other dimensions than H, W, are float."""
    kind = KINDS[node.target]
    if kind == "integer":
        constant = any(not isinstance(arg, fx.Node) or arg.op == "get_attr" for arg in node.args[:2])
        if node.target in (aten.add.Tensor, aten.mul.Tensor) and constant:
            return "float"
        if node.target is aten.mean.dim and not is_global_average(node):
            return "float"
    return kind


def is_global_average(node: fx.Node) -> bool:
    """Returns whether a `mean.dim` is the average over height and width, both kept with size 1."""
    source, dims, keep = node.args[:3]
    assert isinstance(source, fx.Node)
    return source.meta["val"].dim() == 4 and sorted(d % 4 for d in dims) == [2, 3] and bool(keep)  # type: ignore[operator, union-attr]


def clip_limits(node: fx.Node) -> tuple[float | None, float | None]:
    """Returns the lower and the upper limit of a clip, None where there is none."""
    if node.target is aten.relu.default:
        return 0.0, None
    low, high = (*node.args[1:], None, None)[:2]
    return low, high  # type: ignore[return-value]
