"""The decomposition rules for padding by values of the image, for upsampling and for pixel shuffles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.node import Argument, Target

from ghnq.deploy.graph.decomposer import Decomposer, source_location
from ghnq.deploy.graph.shape_decompositions import slice_range
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError

_PADDINGS = {"reflect": aten.reflection_pad2d.default, "replicate": aten.replication_pad2d.default}


def pad(
    graph: Decomposer, node: fx.Node, x: fx.Node, sides: Sequence[int], mode: str, value: float | None = None
) -> fx.Node:
    """Adds a padding: by a number, or by values of the image (reflect, replicate, circular).

    Raises:
        ExportError: Values of the image are padded by in other dimensions than height and width.
    """
    if mode == "constant":
        return graph.call(aten.constant_pad_nd.default, x, list(sides), float(value or 0), like=node)
    if x.meta["val"].dim() != 4:
        raise ExportError(
            f"{source_location(node)} pads a tensor of {x.meta['val'].dim()} dimensions by {mode}; only images "
            "[B, C, H, W] can be padded so in a file for a device"
        )
    if mode == "circular":
        for dim, (before, after) in enumerate(zip(sides[::2], sides[1::2], strict=True)):
            x = _wrap(graph, node, x, 3 - dim, before, after)
        return x
    return pad_by(graph, node, _PADDINGS[mode], x, sides)


def pad_by(graph: Decomposer, node: fx.Node, function: Target, x: fx.Node, sides: Sequence[int]) -> fx.Node:
    """Adds a padding of height and width by reflection or replication."""
    return graph.call(function, x, [*sides, *[0] * (4 - len(sides))], like=node)


def reflection_pad(graph: Decomposer, node: fx.Node, x: fx.Node, sides: Sequence[int]) -> fx.Node:
    """Adds a padding by reflection."""
    return pad(graph, node, x, sides, "reflect")


def replication_pad(graph: Decomposer, node: fx.Node, x: fx.Node, sides: Sequence[int]) -> fx.Node:
    """Adds a padding by replication."""
    return pad(graph, node, x, sides, "replicate")


def _wrap(graph: Decomposer, node: fx.Node, x: fx.Node, dim: int, before: int, after: int) -> fx.Node:
    """Adds the circular padding of one dimension: its end, itself, its beginning."""
    value, size = x.meta["val"], x.meta["val"].shape[dim]
    if before < 0 or after < 0:
        raise ExportError(f"{source_location(node)} pads by {before} and {after}; needed are numbers from 0 on")
    parts = [slice_range(graph, node, x, dim, size - before, size)] if before else []
    parts += [x, *([slice_range(graph, node, x, dim, 0, after)] if after else [])]
    if len(parts) == 1:
        return x
    whole = torch.cat([part.meta["val"] for part in parts], dim)
    assert whole.shape[dim] == value.shape[dim] + before + after
    return graph.call(aten.cat.default, parts, dim, like=node, value=whole)


def upsample_nearest(graph: Decomposer, node: fx.Node, x: fx.Node, *_: Argument) -> fx.Node:
    """Adds nearest-neighbour resizing, by factors.

    Raises:
        ExportError: Factors give other pixels than the function.
    """
    factors = _factors(node, x)
    _check_same(node, x, aten.upsample_nearest2d.vec, None, factors)
    for before, after, factor in zip(x.meta["val"].shape[2:], node.meta["val"].shape[2:], factors, strict=True):
        # Runtimes divide where torch multiplies by the inverse.
        exact = np.arange(after) * before // after
        if not np.array_equal(np.floor(np.arange(after, dtype=np.float32) / np.float32(factor)), exact):
            raise _not_by_factors(node, x)
    return graph.call(aten.upsample_nearest2d.vec, x, None, factors, like=node)


def upsample_bilinear(
    graph: Decomposer, node: fx.Node, x: fx.Node, size: Argument, corners: bool, *_: Argument
) -> fx.Node:
    """Adds bilinear resizing, by factors.

    Raises:
        ExportError: Factors weigh pixels otherwise than the function.
    """
    factors = _factors(node, x)
    _check_same(node, x, aten.upsample_bilinear2d.vec, None, corners, factors)
    return graph.call(aten.upsample_bilinear2d.vec, x, None, corners, factors, like=node)


def _factors(node: fx.Node, x: fx.Node) -> list[float]:
    """Returns the smallest float32 from `after / before` on that give the size `after`."""
    factors = []
    for before, after in zip(x.meta["val"].shape[2:], node.meta["val"].shape[2:], strict=True):
        factor = np.float32(after / before)
        while int(np.float32(before) * factor) < after or int(before * float(factor)) < after:
            factor = np.nextafter(factor, np.float32(np.inf))
        factors.append(float(factor))
    return factors


def _check_same(node: fx.Node, x: fx.Node, by_factors: Callable[..., Tensor], *args: Argument) -> None:
    """Raises ExportError where the function gives something else on a test image than resizing by factors.

    The two differ where torch was given a factor that does not divide: it then steps by 1 / factor, not by the ratio of
    the sizes.
    """
    height, width = (int(n) for n in x.meta["val"].shape[2:])
    image = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width) / (height * width)
    assert callable(node.target)
    found: Tensor = node.target(image, *node.args[1:], **node.kwargs)
    expected = by_factors(image, *args)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0, atol=1e-5):
        raise _not_by_factors(node, x)


def _not_by_factors(node: fx.Node, x: fx.Node) -> ExportError:
    before, after = ("x".join(map(str, shape[2:])) for shape in (x.meta["val"].shape, node.meta["val"].shape))
    return ExportError(
        f"{source_location(node)} from {before} to {after} cannot be expressed in a file for a device; "
        "choose a size that is a multiple"
    )


def pixel_shuffle(graph: Decomposer, node: fx.Node, x: fx.Node, factor: int) -> fx.Node:
    """Adds a pixel shuffle: reshape, permutation, reshape."""
    batch, channels, height, width = x.meta["val"].shape
    split = graph.reshape(x, node, (batch, channels // factor**2, factor, factor, height, width))
    order = [0, 1, 4, 2, 5, 3]
    moved = graph.call(aten.permute.default, split, order, like=node, value=split.meta["val"].permute(order))
    return graph.reshape(moved, node)


def pixel_unshuffle(graph: Decomposer, node: fx.Node, x: fx.Node, factor: int) -> fx.Node:
    """Adds the inverse of a pixel shuffle."""
    batch, channels, height, width = x.meta["val"].shape
    split = graph.reshape(x, node, (batch, channels, height // factor, factor, width // factor, factor))
    order = [0, 1, 3, 5, 2, 4]
    moved = graph.call(aten.permute.default, split, order, like=node, value=split.meta["val"].permute(order))
    return graph.reshape(moved, node)
