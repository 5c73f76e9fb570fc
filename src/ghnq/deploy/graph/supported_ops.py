"""The vocabulary of a deployed graph: which ATen functions may stand in it, and what an integer runtime does with each.

Everything that torch.export gives is put into these words (`normal.py`); the writer, the reader and the placement of
grids know no others.
"""

from typing import Any, Literal

import torch
from torch import fx

aten = torch.ops.aten

Kind = Literal["layer", "integer", "keep", "clip", "float"]
"""What a word means for integers.

layer: a convolution or linear layer; has an integer kernel where weight and input are quantized.
integer: has an integer kernel that takes integers and gives integers, at scales of their own.
keep: only moves or picks values, so input and output share one grid.
clip: cuts values off; a grid that ends where the clip does makes it redundant.
float: computed in float between a dequantization and a quantization.
"""

KINDS: dict[Any, Kind] = {
    aten.conv2d.default: "layer",
    aten.linear.default: "layer",
    aten.add.Tensor: "integer",
    aten.mul.Tensor: "integer",
    aten.cat.default: "integer",
    aten.avg_pool2d.default: "integer",
    aten.mean.dim: "integer",
    aten.sigmoid.default: "integer",
    aten.leaky_relu.default: "integer",
    aten.max_pool2d.default: "keep",
    aten.reshape.default: "keep",
    aten.permute.default: "keep",
    aten.slice.Tensor: "keep",
    aten.relu.default: "clip",
    aten.clamp.default: "clip",
    aten.batch_norm.default: "float",
    aten.layer_norm.default: "float",
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


def kind_of(node: fx.Node) -> Kind:
    """The kind of a node; arithmetic with a constant, and means over anything but an image, are left in float."""
    kind = KINDS[node.target]
    if kind == "integer":
        constant = any(not isinstance(arg, fx.Node) or arg.op == "get_attr" for arg in node.args[:2])
        if node.target in (aten.add.Tensor, aten.mul.Tensor) and constant:
            return "float"
        if node.target is aten.mean.dim and not is_global_average(node):
            return "float"
    return kind


def is_global_average(node: fx.Node) -> bool:
    """Whether a `mean.dim` is the average over height and width, both kept with size 1."""
    source, dims, keep = node.args[:3]
    assert isinstance(source, fx.Node)
    return source.meta["val"].dim() == 4 and sorted(d % 4 for d in dims) == [2, 3] and bool(keep)  # type: ignore[operator, union-attr]


def clip_limits(node: fx.Node) -> tuple[float | None, float | None]:
    """Smallest and largest value that a clip lets pass, None where it is open."""
    if node.target is aten.relu.default:
        return 0.0, None
    low, high = (*node.args[1:], None, None)[:2]
    return low, high  # type: ignore[return-value]
