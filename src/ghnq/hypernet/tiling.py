"""Repeat, scale and lay out a predicted block as the weights of a layer of any width, in one pass.

A wide layer is written once, from a block that stays in the cache. Tiling, then scaling, then changing the layout would
read and write it three times, and for a ResNet-50 that is most of the prediction.

Dimensions: S slots of a group, O/I channels of the layer, o/i of the block, K kernel height or width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ghnq.graph.ir import Shape

Identity = Literal["dense", "depthwise"]
HUGE_PAGE_BYTES = 1 << 22
"""Size from which numpy allocates memory in huge pages."""


def tile(tensor: Tensor, shape: Shape) -> Tensor:
    """Returns [S, ...] as [S, *shape]: repeated along each dimension that is too short, cut where it is too long.

    The last repetition is cut, so that sizes need not divide anything.
    """
    repeats = [-(-want // have) for want, have in zip(shape, tensor.shape[1:], strict=True)]
    if any(r > 1 for r in repeats):
        tensor = tensor.repeat(1, *repeats)
    if tensor.shape[1:] != shape:
        tensor = tensor[(slice(None), *(slice(0, s) for s in shape))]
    return tensor


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a block becomes the weights of a layer: gain * block, repeated and cut to `shape`.

    Attributes:
        shape: (O, I, K, K).
        channels_last: Whether each kernel of the stack is stored in channels last, with which convolutions on a CPU
            run fastest.
        identity: The kind of convolution whose identity kernel is added; None: no kernel is added.
    """

    shape: Shape
    gain: float = 1.0
    channels_last: bool = False
    identity: Identity | None = None

    def forward(self, block: Tensor) -> Tensor:
        """Returns the weights [S, *shape], new memory, for a block [S, o, i, K, K]."""
        source = cut(block, self.shape)
        weights = self.empty(len(block), block)
        if source.shape == weights.shape:
            torch.mul(source, self.gain, out=weights)
        else:
            source, stored = self.as_stored(source), self.as_stored(weights)
            scaled = torch.empty_like(source, memory_format=torch.contiguous_format)
            _write_repeated(torch.mul(source, self.gain, out=scaled), stored)
        self.add_identity(weights)
        return weights

    def backward(self, grad: Tensor, grad_block: Tensor) -> None:
        """Writes the gradient of the block [S, o, i, K, K], given that of the weights [S, *shape]."""
        for dim, size in enumerate(grad_block.shape[1:], start=1):
            if grad.shape[dim] > size:
                first, *others = torch.split(grad, size, dim)
                grad = first.clone()
                for other in others:  # the last repetition may have been cut
                    grad.narrow(dim, 0, other.shape[dim]).add_(other)
        if grad.shape != grad_block.shape:
            grad_block.zero_()
        torch.mul(grad, self.gain, out=cut(grad_block, grad.shape[1:]))

    def add_identity(self, weights: Tensor) -> None:
        """Adds the identity kernel, which passes every channel on, to weights [S, *shape] in place, if asked for."""
        if self.identity is not None:
            middle = weights[:, :, :, self.shape[2] // 2, self.shape[3] // 2]
            (middle if self.identity == "depthwise" else middle.diagonal(dim1=1, dim2=2)).add_(1)

    def empty(self, slots: int, like: Tensor) -> Tensor:
        """Returns uninitialised weights [S, *shape] in the layout asked for, of the type and device of a tensor."""
        o, i, height, width = self.shape
        if self.channels_last:
            return _empty((slots, o, height, width, i), like).permute(0, 1, 4, 2, 3)
        return _empty((slots, *self.shape), like)

    def as_stored(self, weights: Tensor) -> Tensor:
        """Returns a view of [S, O, I, K, K] in the order of its memory."""
        return weights.permute(0, 1, 3, 4, 2) if self.channels_last else weights


def tile_block(block: Tensor, tiling: Tiling) -> Tensor:
    """Returns a block [S, o, i, K, K] as the weights [S, *tiling.shape]; differentiable."""
    return torch.as_tensor(_TileBlock.apply(block, tiling))  # type: ignore[no-untyped-call]


class _TileBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Tensor, tiling: Tiling) -> Tensor:
        ctx.block_shape, ctx.tiling = block.shape, tiling
        return tiling.forward(block)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad_block = grad.new_empty(ctx.block_shape)
        ctx.tiling.backward(grad, grad_block)
        return grad_block, None


def cut(block: Tensor, shape: Shape) -> Tensor:
    """Returns a view of [S, o, i, K, K] without what lies beyond (O, I, K, K)."""
    if all(have <= want for have, want in zip(block.shape[1:], shape, strict=True)):
        return block
    return block[(slice(None), *(slice(0, size) for size in shape))]


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Returns uninitialised memory, in huge pages if it is large, for which numpy asks and torch does not.

    The first access to every small page of a ResNet-50's weights takes longer than all arithmetic of the prediction.
    """
    if like.device.type == "cpu" and like.dtype == torch.float32 and 4 * math.prod(shape) >= HUGE_PAGE_BYTES:
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return like.new_empty(shape)


def _write_repeated(source: Tensor, stored: Tensor) -> None:
    """Writes the source repeatedly until `stored`, of as many dimensions, is full; last dimensions first."""
    written = list(source.shape)
    stored[tuple(slice(0, size) for size in written)] = source
    for dim in (4, 3, 2, 1):
        have, want = written[dim], stored.shape[dim]
        first = stored[tuple(slice(0, size) for size in written)]
        times, rest = divmod(want, have)
        if times > 1:
            target = stored[tuple(slice(0, size) for size in (*written[:dim], times * have, *written[dim + 1 :]))]
            target = target.narrow(dim, have, (times - 1) * have)
            target = torch.unflatten(target, dim, (times - 1, have))
            target.copy_(first.unsqueeze(dim).expand_as(target))
        if rest and times:
            target = stored[tuple(slice(0, size) for size in (*written[:dim], want, *written[dim + 1 :]))]
            target.narrow(dim, times * have, rest).copy_(first.narrow(dim, 0, rest))
        written[dim] = want
