"""The decomposition rules for pooling and for what moves or selects values."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, fx
from torch.fx.node import Argument

from ghnq.deploy.graph.decomposer import Decomposer, Size, height_width, source_location
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError


def within_image(node: fx.Node, value: Tensor, dims: Sequence[int]) -> list[int]:
    """Returns dimensions counted from the front.

    Raises:
        ExportError: One of them is the batch.
    """
    positive = [dim % value.dim() for dim in dims]
    if not all(isinstance(value.shape[dim], int) for dim in positive):
        raise ExportError(
            f"{source_location(node)} goes over the images of the batch; only what is computed within one image can be "
            "exported"
        )
    return positive


def mean(graph: Decomposer, node: fx.Node, x: fx.Node, dims: Sequence[int], keep: bool, *_: Argument) -> fx.Node:
    """Adds an average over dimensions; one over height and width keeps them until it is reshaped."""
    value = x.meta["val"]
    dims = within_image(node, value, dims)
    if value.dim() == 4 and sorted(dims) == [2, 3] and not keep:
        pooled = graph.call(aten.mean.dim, x, [2, 3], True, like=node, value=value[:, :, :1, :1])
        return graph.reshape(pooled, node)
    return graph.call(aten.mean.dim, x, dims, keep, like=node)


def adaptive_avg_pool(graph: Decomposer, node: fx.Node, x: fx.Node, size: Sequence[int]) -> fx.Node:
    """Adds adaptive average pooling, as pooling with windows of one size.

    Raises:
        ExportError: The windows have several sizes.
    """
    height, width = x.meta["val"].shape[2:]
    out_height, out_width = node.meta["val"].shape[2:]
    if (out_height, out_width) == (1, 1):
        return graph.call(aten.mean.dim, x, [2, 3], True, like=node)
    if height % out_height or width % out_width:
        raise ExportError(
            f"{source_location(node)} from {height}x{width} to {tuple(size)} has windows of several sizes, which ONNX "
            "cannot express; choose sizes that divide"
        )
    window = [height // out_height, width // out_width]
    return graph.call(aten.avg_pool2d.default, x, window, window, [0, 0], False, True, like=node)


def avg_pool(
    graph: Decomposer,
    node: fx.Node,
    x: fx.Node,
    kernel_size: Size,
    stride: Size,
    padding: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> fx.Node:
    """Adds average pooling.

    With `ceil_mode`, windows may reach beyond the padding; what is there is never counted. `count_include_pad` then is
    a padding of its own: runtimes count all that an average pads, or nothing.

    Raises:
        ExportError: There is a divisor.
    """
    if divisor is not None:
        raise ExportError(f"{source_location(node)} with divisor_override cannot be expressed; multiply its result")
    window, steps, zeros = height_width(kernel_size), height_width(stride or kernel_size), height_width(padding)
    shape, out = x.meta["val"].shape[2:], node.meta["val"].shape[2:]
    beyond = [(m - 1) * s + w - n - p for m, s, w, n, p in zip(out, steps, window, shape, zeros, strict=True)]
    if not ceil_mode or all(end <= p for end, p in zip(beyond, zeros, strict=True)):
        return graph.call(aten.avg_pool2d.default, x, window, steps, zeros, False, count_include_pad, like=node)
    if count_include_pad and any(zeros):
        bottom, right = (min(end, p) for end, p in zip(beyond, zeros, strict=True))
        sides = [zeros[1], right, zeros[0], bottom]
        x = graph.call(aten.constant_pad_nd.default, x, sides, 0.0, like=node, value=F.pad(x.meta["val"], sides))
        zeros = [0, 0]
    return graph.call(aten.avg_pool2d.default, x, window, steps, zeros, True, False, like=node)


def max_pool(
    graph: Decomposer,
    node: fx.Node,
    x: fx.Node,
    kernel_size: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
) -> fx.Node:
    """Adds max pooling."""
    sizes = [height_width(size) for size in (kernel_size, stride or kernel_size, padding, dilation)]
    return graph.call(aten.max_pool2d.default, x, *sizes, ceil_mode, like=node)


def permute(graph: Decomposer, node: fx.Node, x: fx.Node, dims: Sequence[int]) -> fx.Node:
    """Adds a permutation of dimensions."""
    return graph.call(aten.permute.default, x, [dim % len(dims) for dim in dims], like=node)


def transpose(graph: Decomposer, node: fx.Node, x: fx.Node, first: int = 0, second: int = 1) -> fx.Node:
    """Adds an exchange of two dimensions."""
    rank = x.meta["val"].dim()
    dims = list(range(rank))
    dims[first % rank], dims[second % rank] = second % rank, first % rank
    return graph.call(aten.permute.default, x, dims, like=node)


def slice_dimension(
    graph: Decomposer, node: fx.Node, x: fx.Node, dim: int, start: int | None, end: int | None, step: int
) -> fx.Node:
    """Adds a slice along one dimension."""
    return slice_range(graph, node, x, dim % x.meta["val"].dim(), start or 0, end, step)


def slice_range(
    graph: Decomposer, node: fx.Node, x: fx.Node, dim: int, start: int, end: int | None, step: int = 1
) -> fx.Node:
    """Adds a slice along one dimension; one of the batch has to hold the whole batch."""
    size = x.meta["val"].shape[dim]
    if not isinstance(size, int):
        if not start and step == 1 and not isinstance(end, fx.Node) and (end is None or end >= 2**31):
            return x
        raise ExportError(f"{source_location(node)} selects from the batch; only whole batches can be exported")
    first, last = (max(v + size, 0) if v < 0 else min(v, size) for v in (start, size if end is None else end))
    value = x.meta["val"].narrow(dim, first, last - first)
    if step != 1:
        value = value[(slice(None),) * dim + (slice(None, None, step),)]
    return graph.call(aten.slice.Tensor, x, dim, first, last, step, like=node, value=value)


def select(graph: Decomposer, node: fx.Node, x: fx.Node, dim: int, index: int) -> fx.Node:
    """Adds the selection of one index along a dimension."""
    dim = dim % x.meta["val"].dim()
    index = index % x.meta["val"].shape[dim]
    return graph.reshape(slice_range(graph, node, x, dim, index, index + 1), node)
