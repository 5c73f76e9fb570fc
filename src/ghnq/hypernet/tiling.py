"""Repeat, scale and lay out in one pass: a predicted block becomes the weights of a layer of any width.

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
HUGE = 1 << 22
"""Bytes from which numpy asks for huge pages."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How a block becomes the weights of a layer: gain * block, repeated and cut to `shape` (O, I, K, K).

    channels_last: store each kernel of the stack so; convolutions on a CPU run fastest with it.
    identity: add the kernel of a `dense` or `depthwise` convolution that hands every channel on.
    """

    shape: Shape
    gain: float = 1.0
    channels_last: bool = False
    identity: Identity | None = None

    def forward(self, block: Tensor) -> Tensor:
        """[S, o, i, k, k] -> [S, *shape], new memory."""
        there, back = ((0, 1, 3, 4, 2), (0, 1, 4, 2, 3)) if self.channels_last else ((0, 1, 2, 3, 4),) * 2
        source = _cut(block, self.shape).permute(there)
        sizes = (len(block), *self.shape)
        stored = _room(tuple(sizes[dim] for dim in there), block)
        if source.shape == stored.shape:
            torch.mul(source, self.gain, out=stored)
        else:
            scaled = torch.empty_like(source, memory_format=torch.contiguous_format)
            _repeat(torch.mul(source, self.gain, out=scaled), stored)
        filled = stored.permute(back)
        self.add_identity(filled)
        return filled

    def add_identity(self, weights: Tensor) -> None:
        """Adds to weights [S, *shape], in place, the kernel that hands every channel on, where there is to be one."""
        if self.identity is not None:
            middle = weights[:, :, :, self.shape[2] // 2, self.shape[3] // 2]
            (middle if self.identity == "depthwise" else middle.diagonal(dim1=1, dim2=2)).add_(1)

    def backward(self, grad: Tensor, block: Tensor) -> None:
        """Writes the gradient of the block [S, o, i, k, k], given that of the weights [S, *shape]."""
        for dim, size in enumerate(block.shape[1:], start=1):
            if grad.shape[dim] > size:
                first, *others = torch.split(grad, size, dim)
                grad = first.clone()
                for other in others:  # the last repetition may have been cut
                    grad.narrow(dim, 0, other.shape[dim]).add_(other)
        if grad.shape != block.shape:
            block.zero_()
        torch.mul(grad, self.gain, out=_cut(block, grad.shape[1:]))


def fill(block: Tensor, filling: Filling) -> Tensor:
    """A block [S, o, i, k, k] as the weights [S, *filling.shape]; differentiable."""
    return torch.as_tensor(_Fill.apply(block, filling))  # type: ignore[no-untyped-call]


class _Fill(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Tensor, filling: Filling) -> Tensor:
        ctx.block, ctx.filling = block.shape, filling
        return filling.forward(block)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        into = grad.new_empty(ctx.block)
        ctx.filling.backward(grad, into)
        return into, None


def _cut(block: Tensor, shape: Shape) -> Tensor:
    """[S, o, i, k, k] without what goes beyond (O, I, K, K), as a view."""
    if all(have <= want for have, want in zip(block.shape[1:], shape, strict=True)):
        return block
    return block[(slice(None), *(slice(0, size) for size in shape))]


def _room(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Memory not yet written to; of large tensors in huge pages, which numpy asks for and torch does not.

    The first touch of every small page of a ResNet-50's weights costs more than all arithmetic of the prediction.
    """
    if like.device.type == "cpu" and like.dtype == torch.float32 and 4 * math.prod(shape) >= HUGE:
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return like.new_empty(shape)


def _repeat(source: Tensor, stored: Tensor) -> None:
    """Writes the source over and over until all of `stored`, of as many dimensions, is full; last dimensions first."""
    written = list(source.shape)
    stored[tuple(slice(0, size) for size in written)] = source
    for dim in (4, 3, 2, 1):
        have, want = written[dim], stored.shape[dim]
        first = stored[tuple(slice(0, size) for size in written)]
        times, rest = divmod(want, have)
        if times > 1:
            room = stored[tuple(slice(0, size) for size in (*written[:dim], times * have, *written[dim + 1 :]))]
            room = room.narrow(dim, have, (times - 1) * have)
            room = torch.unflatten(room, dim, (times - 1, have))
            room.copy_(first.unsqueeze(dim).expand_as(room))
        if rest and times:
            room = stored[tuple(slice(0, size) for size in (*written[:dim], want, *written[dim + 1 :]))]
            room.narrow(dim, times * have, rest).copy_(first.narrow(dim, 0, rest))
        written[dim] = want
