"""From the ATen functions of torch.export to the operators of `supported_ops.py`: one rule for each function.

A rule takes the decomposer, the exported node and all arguments of its function, nodes of the new graph in place of
exported ones; it returns the new node that computes the same. Shapes are [B, ...] with B free: every reshape is written
as (-1, fixed sizes).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx
from torch.fx.node import Argument, Target

from ghnq.deploy.graph.conv_decompositions import conv2d, conv2d_named_padding, conv_transpose2d, convolution
from ghnq.deploy.graph.decomposer import Decomposer, source_location
from ghnq.deploy.graph.norm_decompositions import group_norm, instance_norm
from ghnq.deploy.graph.resampling_decompositions import (
    pad,
    pixel_shuffle,
    pixel_unshuffle,
    reflection_pad,
    replication_pad,
    upsample_bilinear,
    upsample_nearest,
)
from ghnq.deploy.graph.rewriter import node_argument
from ghnq.deploy.graph.shape_decompositions import (
    adaptive_avg_pool,
    avg_pool,
    max_pool,
    mean,
    permute,
    select,
    slice_dimension,
    slice_range,
    transpose,
    within_image,
)
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError
from ghnq.torch_compat import ADAPTIVE_AVG_POOL_2D, BATCH_NORM_INFERENCE, SOFTMAX, TO_COPY, UNSAFE_VIEW

Rule = Callable[..., fx.Node]


def decompose(graph: Decomposer, node: fx.Node) -> fx.Node:
    """Adds what an exported call computes, in supported operators, and returns the node of its result.

    Raises:
        ExportError: The function cannot be expressed in supported operators.
    """
    if node.target is operator.getitem:
        return _getitem(graph, node)
    if _is_complex(node):
        # The message names the function that needs complex numbers, not the conversion in front of it.
        reader = next(iter(node.users), node) if node.target is TO_COPY else node
        raise ExportError(f"{source_location(reader)} computes with complex numbers, which no file for a device has")
    if node.target in RESHAPES:
        return graph.reshape(graph.value(node_argument(node)), node)
    if node.target in RULES:
        return RULES[node.target](graph, node, *graph.full_values(node))
    raise _unsupported(node)


def _is_complex(node: fx.Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, Tensor) and value.is_complex()


def _unsupported(node: fx.Node) -> ExportError:
    return ExportError(
        f"{source_location(node)} cannot be expressed in a file for a device; supported are convolutions and linear "
        "layers, pooling, upsampling, sums, products, concatenations, reshapes, norms and the usual activations"
    )


def _unchanged(graph: Decomposer, node: fx.Node, *args: Argument) -> fx.Node:
    return graph.call(node.target, *args, like=node)


def _identity(graph: Decomposer, node: fx.Node, x: fx.Node, *_: Argument) -> fx.Node:
    if x.meta["val"].dtype != node.meta["val"].dtype:
        raise ExportError(
            f"{source_location(node)} changes {x.meta['val'].dtype} to {node.meta['val'].dtype}; "
            "export float32 networks"
        )
    return x


def _gelu(graph: Decomposer, node: fx.Node, x: fx.Node, approximate: str) -> fx.Node:
    if approximate != "none":
        raise ExportError(f"{source_location(node)} by {approximate} cannot be expressed; use approximate='none'")
    return graph.call(node.target, x, like=node)  # its one option is keyword-only


def _silu(graph: Decomposer, node: fx.Node, x: fx.Node) -> fx.Node:
    return graph.call(aten.mul.Tensor, x, graph.call(aten.sigmoid.default, x, like=node), like=node)


def _arithmetic(graph: Decomposer, node: fx.Node, x: fx.Node | float, y: fx.Node | float, alpha: float = 1) -> fx.Node:
    """Adds a sum, difference, product or quotient; a number becomes a constant."""
    if alpha != 1:
        raise ExportError(f"{source_location(node)} with alpha={alpha} cannot be expressed; write the product out")
    operands = [
        arg if isinstance(arg, fx.Node) else graph.constant(f"number_{node.name}", torch.tensor(float(arg)))
        for arg in (x, y)
    ]
    return graph.call(_TENSOR_OVERLOAD.get(node.target, node.target), *operands, like=node)


def _linear(graph: Decomposer, node: fx.Node, x: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
    """Adds a linear layer; one on [..., I] is computed on [B * ..., I], which is what integer kernels take."""
    value = x.meta["val"]
    if value.dim() == 2:
        return graph.call(aten.linear.default, x, weight, bias, like=node)
    flat = graph.reshape(x, node, (value.numel() // value.shape[-1], value.shape[-1]))
    out = node.meta["val"]
    y = graph.call(aten.linear.default, flat, weight, bias, like=node, value=out.reshape(-1, out.shape[-1]))
    return graph.reshape(y, node)


def _clamp(
    graph: Decomposer, node: fx.Node, x: fx.Node, low: fx.Node | float | None, high: fx.Node | float | None = None
) -> fx.Node:
    limits: list[float | None] = []
    for limit in (low, high):
        if isinstance(limit, fx.Node):
            raise ExportError(f"{source_location(node)}: only fixed numbers can be limits")
        limits.append(None if limit is None else float(limit))
    return graph.call(aten.clamp.default, x, *limits, like=node)


def _clamp_max(graph: Decomposer, node: fx.Node, x: fx.Node, high: float) -> fx.Node:
    return _clamp(graph, node, x, None, high)


def _softmax(graph: Decomposer, node: fx.Node, x: fx.Node, dim: int, *_: Argument) -> fx.Node:
    within_image(node, x.meta["val"], [dim])
    return graph.call(aten.softmax.int, x, dim, like=node)


def _matmul(graph: Decomposer, node: fx.Node, x: fx.Node, y: fx.Node) -> fx.Node:
    within_image(node, x.meta["val"], [-1])  # the dimension that is summed over
    return graph.call(aten.matmul.default, x, y, like=node)


def _getitem(graph: Decomposer, node: fx.Node) -> fx.Node:
    """Adds one result of a function that has several."""
    source, index = node_argument(node), node.args[1]
    rule = RESULT_RULES.get(source.target)
    assert isinstance(index, int)
    if rule is None or (index > 0 and source.target is not aten.split_with_sizes.default):
        raise _unsupported(source)
    return rule(graph, node, index, *graph.full_values(source))


def _batch_norm(
    graph: Decomposer,
    node: fx.Node,
    index: int,
    x: fx.Node,
    weight: fx.Node | None,
    bias: fx.Node | None,
    mean: fx.Node,
    variance: fx.Node,
    momentum: float,
    eps: float,
) -> fx.Node:
    args = x, weight, bias, mean, variance, False, 0.0, eps, False
    return graph.call(aten.batch_norm.default, *args, like=node)


def _layer_norm(graph: Decomposer, node: fx.Node, index: int, *args: Argument) -> fx.Node:
    return graph.call(aten.layer_norm.default, *args, like=node)


def _max_pool_values(graph: Decomposer, node: fx.Node, index: int, *args: Argument) -> fx.Node:
    return max_pool(graph, node, *args)  # type: ignore[arg-type]


def _split(graph: Decomposer, node: fx.Node, index: int, x: fx.Node, sizes: Sequence[int], dim: int) -> fx.Node:
    start = sum(sizes[:index])
    return slice_range(graph, node, x, dim % x.meta["val"].dim(), start, start + sizes[index])


RESULT_RULES: dict[Target, Rule] = {
    BATCH_NORM_INFERENCE: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten.max_pool2d_with_indices.default: _max_pool_values,
    aten.split_with_sizes.default: _split,
}
"""Functions with several results, of which `getitem` selects one: only the `getitem` becomes a node.

Of all but splits, only the first result is supported. The rules take the index of the result as well.
"""

NOT_DECOMPOSED = (
    aten.conv2d.default, aten.conv2d.padding, aten.linear.default, aten.max_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten.hardsigmoid.default, aten.hardswish.default, aten.silu.default,
    aten.matmul.default, aten.softmax.int, aten.elu.default, aten.conv_transpose2d.input, aten.pad.default,
    aten.reflection_pad2d.default, aten.replication_pad2d.default, aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default, aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default,
    aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.group_norm.default, aten.instance_norm.default,
)  # fmt: skip
"""Functions that torch.export must not decompose."""

RESHAPES = (
    aten.view.default, UNSAFE_VIEW, aten.reshape.default, aten.flatten.using_ints, aten.unsqueeze.default,
    aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unflatten.int,
)  # fmt: skip
"""Functions whose result is their first argument in another shape; their other arguments may depend on the batch."""

_TENSOR_OVERLOAD: dict[Target, Target] = {
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}

RULES: dict[Target, Rule] = {
    aten.conv2d.default: conv2d,
    aten.conv2d.padding: conv2d_named_padding,
    aten.conv_transpose2d.input: conv_transpose2d,
    aten.convolution.default: convolution,
    aten.pad.default: pad,
    aten.reflection_pad2d.default: reflection_pad,
    aten.replication_pad2d.default: replication_pad,
    aten.upsample_nearest2d.vec: upsample_nearest,
    aten.upsample_nearest2d.default: upsample_nearest,
    aten.upsample_bilinear2d.vec: upsample_bilinear,
    aten.upsample_bilinear2d.default: upsample_bilinear,
    aten.pixel_shuffle.default: pixel_shuffle,
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: instance_norm,
    aten.linear.default: _linear,
    aten.relu.default: _unchanged,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp_max,
    aten.hardtanh.default: _clamp,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool,
    ADAPTIVE_AVG_POOL_2D: adaptive_avg_pool,
    aten.mean.dim: mean,
    aten.avg_pool2d.default: avg_pool,
    aten.max_pool2d.default: max_pool,
    aten.cat.default: _unchanged,
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.t.default: transpose,
    aten.slice.Tensor: slice_dimension,
    aten.select.int: select,
    aten.silu.default: _silu,
    aten.softmax.int: _softmax,
    SOFTMAX: _softmax,
    aten.matmul.default: _matmul,
    aten.bmm.default: _matmul,
    aten.gelu.default: _gelu,
    **dict.fromkeys(
        (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, *_TENSOR_OVERLOAD),
        _arithmetic,
    ),
    **dict.fromkeys(
        (aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default, aten.dropout.default,
         TO_COPY, aten.lift_fresh_copy.default),
        _identity,
    ),
    **dict.fromkeys(
        (aten.sigmoid.default, aten.tanh.default, aten.hardsigmoid.default, aten.hardswish.default,
         aten.elu.default, aten.leaky_relu.default, aten.constant_pad_nd.default),
        _unchanged,
    ),
}  # fmt: skip
