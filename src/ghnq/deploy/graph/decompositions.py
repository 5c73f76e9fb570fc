"""From what torch.export gives to the vocabulary of `ops.py`: one rule for each ATen function.

A rule takes the builder and the exported node and returns the node that stands for it, made of known words. Shapes are
[B, ...] with B free: every reshape is written as (-1, fixed sizes).
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ghnq.deploy.graph.builder import Builder, full_args, pair, place_of
from ghnq.deploy.graph.conv_decompositions import conv, other_conv, padded_conv
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError
from ghnq.torch_compat import ADAPTIVE_AVG_POOL_2D, BATCH_NORM_INFERENCE, SOFTMAX, TO_COPY, UNSAFE_VIEW

Rule = Callable[[Builder, fx.Node], fx.Node]


def rule_for(node: fx.Node) -> Rule:
    """The rule of an exported call; raises ExportError for a function that no word stands for."""
    if node.target is operator.getitem:
        return _getitem
    if _is_complex(node):
        # What asks for complex numbers is to blame, not the conversion that torch.export puts in front of it.
        asking = next(iter(node.users), node) if node.target is TO_COPY else node
        raise ExportError(f"{place_of(asking)} computes with complex numbers, which no file for a device has")
    rule = RULES.get(node.target)
    if rule is None and node.target is aten.native_group_norm.default:
        raise ExportError(
            f"{place_of(node)} is a group norm, which cannot be expressed in a file for a device; use a batch norm, "
            "which folds into the layer in front of it"
        )
    if rule is None:
        raise ExportError(
            f"{place_of(node)} cannot be expressed in a file for a device; known are convolutions and linear "
            "layers, pooling, sums, products, concatenations, reshapes, batch and layer norms and the usual activations"
        )
    return rule


def _is_complex(node: fx.Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, torch.Tensor) and value.is_complex()


def _as_it_is(b: Builder, node: fx.Node) -> fx.Node:
    return b.call(node.target, *b.mapped(full_args(node)), like=node)


def _identity(b: Builder, node: fx.Node) -> fx.Node:
    x: fx.Node = b.mapped(node.args[0])
    if x.meta["val"].dtype != node.meta["val"].dtype:
        raise ExportError(
            f"{place_of(node)} changes {x.meta['val'].dtype} to {node.meta['val'].dtype}; export float32 networks"
        )
    return x


def _gelu(b: Builder, node: fx.Node) -> fx.Node:
    x, approximate = b.mapped(full_args(node))
    if approximate != "none":
        raise ExportError(f"{place_of(node)} by {approximate} cannot be expressed; use approximate='none'")
    return b.call(node.target, x, like=node)  # the word is by erf; its one option is no positional argument


def _reshape(b: Builder, node: fx.Node) -> fx.Node:
    return b.reshape(b.mapped(node.args[0]), node)


def _two_inputs(b: Builder, node: fx.Node) -> fx.Node:
    """Sum and the like: a factor alpha must be 1, a number becomes a constant."""
    x, y, *alpha = b.mapped(full_args(node))
    if alpha and alpha[0] != 1:
        raise ExportError(f"{place_of(node)} with alpha={alpha[0]} cannot be expressed; write the product out")
    x, y = (
        arg if isinstance(arg, fx.Node) else b.constant(f"number_{node.name}", torch.tensor(float(arg)))
        for arg in (x, y)
    )
    target: Any = node.target
    return b.call(_TENSOR_TWIN.get(target, target), x, y, like=node)


def _linear(b: Builder, node: fx.Node) -> fx.Node:
    """A linear layer on [..., I] runs as one on [B * ..., I], which is what integer kernels take."""
    x, weight, bias = b.mapped(full_args(node))
    value = x.meta["val"]
    if value.dim() == 2:
        return b.call(aten.linear.default, x, weight, bias, like=node)
    flat = b.reshape(x, node, (value.numel() // value.shape[-1], value.shape[-1]))
    out = node.meta["val"]
    y = b.call(aten.linear.default, flat, weight, bias, like=node, value=out.reshape(-1, out.shape[-1]))
    return b.reshape(y, node)


def _clamp(b: Builder, node: fx.Node) -> fx.Node:
    x, *limits = b.mapped(full_args(node))
    if any(isinstance(limit, fx.Node) for limit in limits):
        raise ExportError(f"{place_of(node)}: only fixed numbers can be limits")
    low, high = (*limits, None)[:2]
    return b.call(aten.clamp.default, x, *(None if v is None else float(v) for v in (low, high)), like=node)


def _mean(b: Builder, node: fx.Node) -> fx.Node:
    x, dims, keep = b.mapped(full_args(node))[:3]
    value = x.meta["val"]
    dims = _within_image(node, value, dims)
    if value.dim() == 4 and sorted(dims) == [2, 3] and not keep:
        whole = b.call(aten.mean.dim, x, [2, 3], True, like=node, value=value[:, :, :1, :1])
        return b.reshape(whole, node)
    return b.call(aten.mean.dim, x, dims, keep, like=node)


def _softmax(b: Builder, node: fx.Node) -> fx.Node:
    x, dim = b.mapped(full_args(node)[:2])
    _within_image(node, x.meta["val"], [dim])
    return b.call(aten.softmax.int, x, dim, like=node)


def _matmul(b: Builder, node: fx.Node) -> fx.Node:
    x, y = b.mapped(full_args(node))
    _within_image(node, x.meta["val"], [-1])  # what is summed over
    return b.call(aten.matmul.default, x, y, like=node)


def _within_image(node: fx.Node, value: torch.Tensor, dims: list[int]) -> list[int]:
    """Dimensions counted from the front, of which none may be the batch."""
    dims = [d % value.dim() for d in dims]
    if not all(isinstance(value.shape[d], int) for d in dims):
        raise ExportError(
            f"{place_of(node)} goes over the images of the batch; only what happens within one image can be exported"
        )
    return dims


def _adaptive_avg_pool(b: Builder, node: fx.Node) -> fx.Node:
    x, size = b.mapped(node.args[:2])
    height, width = x.meta["val"].shape[2:]
    out_height, out_width = node.meta["val"].shape[2:]
    if (out_height, out_width) == (1, 1):
        return b.call(aten.mean.dim, x, [2, 3], True, like=node)
    if height % out_height or width % out_width:
        raise ExportError(
            f"{place_of(node)} from {height}x{width} to {tuple(size)} has windows of several sizes, which ONNX cannot "
            "express; choose sizes that divide"
        )
    window = [height // out_height, width // out_width]
    return b.call(aten.avg_pool2d.default, x, window, window, [0, 0], False, True, like=node)


def _avg_pool(b: Builder, node: fx.Node) -> fx.Node:
    x, window, stride, padding, ceil, include, divisor = b.mapped(full_args(node))
    window, stride, padding = pair(window), pair(stride or window), pair(padding)
    height, width = x.meta["val"].shape[2:]
    sizes = [(n + 2 * p - w) // s + 1 for n, p, w, s in zip((height, width), padding, window, stride, strict=True)]
    if divisor is not None or (ceil and sizes != list(node.meta["val"].shape[2:])):
        raise ExportError(f"{place_of(node)} with ceil_mode or divisor_override differs from runtime to runtime")
    return b.call(aten.avg_pool2d.default, x, window, stride, padding, False, include, like=node)


def _max_pool(b: Builder, node: fx.Node) -> fx.Node:
    x, window, stride, padding, dilation, ceil = b.mapped(full_args(node))
    pairs = [pair(window), pair(stride or window), pair(padding), pair(dilation)]
    return b.call(aten.max_pool2d.default, x, *pairs, ceil, like=node)


def _permute(b: Builder, node: fx.Node) -> fx.Node:
    x, dims = b.mapped(node.args)
    return b.call(aten.permute.default, x, [d % len(dims) for d in dims], like=node)


def _transpose(b: Builder, node: fx.Node) -> fx.Node:
    x, *two = b.mapped(node.args)
    rank = x.meta["val"].dim()
    one, other = (d % rank for d in (two or (0, 1)))
    dims = list(range(rank))
    dims[one], dims[other] = other, one
    return b.call(aten.permute.default, x, dims, like=node)


def _slice(b: Builder, node: fx.Node) -> fx.Node:
    x, dim, start, end, step = b.mapped(full_args(node))
    value = x.meta["val"]
    return _sliced(b, node, x, dim % value.dim(), start or 0, end, step)


def _sliced(b: Builder, node: fx.Node, x: fx.Node, dim: int, start: int, end: int | None, step: int = 1) -> fx.Node:
    size = x.meta["val"].shape[dim]
    if not isinstance(size, int):
        if not start and step == 1 and not isinstance(end, fx.Node) and (end is None or end >= 2**31):
            return x
        raise ExportError(f"{place_of(node)} picks from the batch; only whole batches can be exported")
    start, end = (max(v + size, 0) if v < 0 else min(v, size) for v in (start, size if end is None else end))
    value = x.meta["val"].narrow(dim, start, end - start)
    if step != 1:
        value = value[(slice(None),) * dim + (slice(None, None, step),)]
    return b.call(aten.slice.Tensor, x, dim, start, end, step, like=node, value=value)


def _select(b: Builder, node: fx.Node) -> fx.Node:
    x, dim, index = b.mapped(node.args)
    dim = dim % x.meta["val"].dim()
    index = index % x.meta["val"].shape[dim]
    return b.reshape(_sliced(b, node, x, dim, index, index + 1), node)


def _getitem(b: Builder, node: fx.Node) -> fx.Node:
    """One result of a function that gives several."""
    source, index = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(index, int)
    if source.target not in SEVERAL:
        return rule_for(source)(b, source)  # which says that there is no word for it
    args = b.mapped(full_args(source))
    if source.target is BATCH_NORM_INFERENCE and index == 0:
        x, weight, bias, mean, variance, _, eps = args
        return b.call(aten.batch_norm.default, x, weight, bias, mean, variance, False, 0.0, eps, False, like=node)
    if source.target is aten.native_layer_norm.default and index == 0:
        x, shape, weight, bias, eps = args
        return b.call(aten.layer_norm.default, x, shape, weight, bias, eps, like=node)
    if source.target is aten.max_pool2d_with_indices.default and index == 0:
        return _max_pool(b, source)
    if source.target is aten.split_with_sizes.default:
        x, sizes, dim = args
        start = sum(sizes[:index])
        return _sliced(b, node, x, dim % x.meta["val"].dim(), start, start + sizes[index])
    return rule_for(source)(b, source)  # which says that there is no word for it


def _silu(b: Builder, node: fx.Node) -> fx.Node:
    x = b.mapped(node.args[0])
    return b.call(aten.mul.Tensor, x, b.call(aten.sigmoid.default, x, like=node), like=node)


SEVERAL = (
    BATCH_NORM_INFERENCE, aten.native_layer_norm.default,
    aten.max_pool2d_with_indices.default, aten.split_with_sizes.default,
)  # fmt: skip
"""Functions with several results, of which `getitem` picks: they make no node themselves."""

KEPT = (
    aten.conv2d.default, aten.conv2d.padding, aten.linear.default, aten.max_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten.hardsigmoid.default, aten.hardswish.default, aten.silu.default,
    aten.matmul.default, aten.softmax.int, aten.elu.default,
)  # fmt: skip
"""Functions that torch.export must not take apart."""

_TENSOR_TWIN: dict[Any, Any] = {
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}

RULES: dict[Any, Rule] = {
    aten.conv2d.default: conv,
    aten.conv2d.padding: padded_conv,
    aten.convolution.default: other_conv,
    aten.linear.default: _linear,
    aten.relu.default: _as_it_is,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: lambda b, node: b.call(
        aten.clamp.default, b.mapped(node.args[0]), None, float(node.args[1]), like=node  # type: ignore[arg-type]
    ),
    aten.hardtanh.default: _clamp,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool,
    ADAPTIVE_AVG_POOL_2D: _adaptive_avg_pool,
    aten.mean.dim: _mean,
    aten.avg_pool2d.default: _avg_pool,
    aten.max_pool2d.default: _max_pool,
    aten.cat.default: _as_it_is,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _transpose,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.silu.default: _silu,
    aten.softmax.int: _softmax,
    SOFTMAX: _softmax,
    aten.matmul.default: _matmul,
    aten.bmm.default: _matmul,
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, *_TENSOR_TWIN), _two_inputs),
    **dict.fromkeys(
        (aten.view.default, UNSAFE_VIEW, aten.reshape.default, aten.flatten.using_ints,
         aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unflatten.int),
        _reshape,
    ),
    **dict.fromkeys(
        (aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default, aten.dropout.default,
         TO_COPY, aten.lift_fresh_copy.default),
        _identity,
    ),
    aten.gelu.default: _gelu,
    **dict.fromkeys(
        (aten.sigmoid.default, aten.tanh.default, aten.hardsigmoid.default, aten.hardswish.default,
         aten.elu.default, aten.leaky_relu.default, aten.constant_pad_nd.default),
        _as_it_is,
    ),
}  # fmt: skip
