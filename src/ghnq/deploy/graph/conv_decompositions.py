"""The decomposition rules for convolutions: all of them become `conv2d` with numbers for its padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import fx

from ghnq.deploy.graph.decomposer import Decomposer, Size, height_width, source_location
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError


def conv2d(
    graph: Decomposer,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    stride: Size,
    padding: Size,
    dilation: Size,
    groups: int,
) -> fx.Node:
    """Adds a 2-D convolution that is padded by numbers."""
    sizes = height_width(stride), height_width(padding), height_width(dilation)
    return graph.call(aten.conv2d.default, x, weight, bias, *sizes, groups, like=node)


def conv2d_named_padding(
    graph: Decomposer,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    stride: Size,
    padding: str,
    dilation: Size,
    groups: int,
) -> fx.Node:
    """Adds a 2-D convolution with padding `valid` or `same`; as in torch, `same` pads an odd zero at the end."""
    steps = height_width(dilation)
    kernel = weight.meta["val"].shape[2:] if padding == "same" else (1, 1)
    totals = [step * (size - 1) for step, size in zip(steps, kernel, strict=True)]
    if any(total % 2 for total in totals):
        (top, left), (bottom, right) = [n // 2 for n in totals], [n - n // 2 for n in totals]
        sides = [left, right, top, bottom]
        x = graph.call(aten.constant_pad_nd.default, x, sides, 0.0, like=node, value=F.pad(x.meta["val"], sides))
        totals = [0, 0]
    zeros = [total // 2 for total in totals]
    return graph.call(aten.conv2d.default, x, weight, bias, height_width(stride), zeros, steps, groups, like=node)


def convolution(
    graph: Decomposer,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> fx.Node:
    """Adds a convolution of any kind.

    Raises:
        ExportError: It has one or three dimensions.
    """
    if len(stride) != 2:
        raise ExportError(
            f"{source_location(node)} is a {len(stride)}-D convolution; only 2-D convolutions (nn.Conv2d, "
            "nn.ConvTranspose2d) can be exported"
        )
    if transposed:
        return conv_transpose2d(graph, node, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv2d(graph, node, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    graph: Decomposer,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    stride: Size,
    padding: Size,
    output_padding: Size,
    groups: int,
    dilation: Size,
) -> fx.Node:
    """Adds a transposed 2-D convolution."""
    sizes = height_width(stride), height_width(padding), height_width(output_padding)
    args = *sizes, groups, height_width(dilation)
    return graph.call(aten.conv_transpose2d.input, x, weight, bias, *args, like=node)
