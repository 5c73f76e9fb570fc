"""Repeat, scale and lay out in one pass: a predicted block becomes the weights of a layer of any width.

A wide layer is written once, from a block that stays in the cache. Tiling, then scaling, then changing the layout would
read and write it three times, and for a ResNet-50 that is most of the prediction.

Dimensions: S slots of a group, O/I channels of the layer, o/i of the block, K kernel height or width.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ghnq.graph.ir import Shape

Identity = Literal["dense", "depthwise"]
HUGE = 1 << 22
"""Bytes from which numpy asks for huge pages."""


def fill(block: Tensor, shape: Shape, gain: float, *, channels_last: bool, identity: Identity | None = None) -> Tensor:
    """gain * block [S, o, i, k, k], repeated and cut to [S, *shape] with shape (O, I, K, K).

    channels_last: store each kernel of the stack so; convolutions on a CPU run fastest with it.
    identity: add the kernel of a `dense` or `depthwise` convolution that hands every channel on.
    """
    return torch.as_tensor(_Fill.apply(block, shape, gain, channels_last, identity))  # type: ignore[no-untyped-call]


class _Fill(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Tensor, shape: Shape, gain: float, channels_last: bool, identity: Identity | None
    ) -> Tensor:
        ctx.block, ctx.gain = block.shape, gain
        there, back = ((0, 1, 3, 4, 2), (0, 1, 4, 2, 3)) if channels_last else ((0, 1, 2, 3, 4),) * 2
        source = block[(slice(None), *(slice(0, size) for size in shape))].permute(there)
        sizes = (len(block), *shape)
        stored = _room(tuple(sizes[dim] for dim in there), block)
        if source.shape == stored.shape:
            torch.mul(source, gain, out=stored)
        else:
            scaled = torch.empty_like(source, memory_format=torch.contiguous_format)
            _repeat(torch.mul(source, gain, out=scaled), stored)
        filled = stored.permute(back)
        if identity is not None:
            middle = filled[:, :, :, shape[2] // 2, shape[3] // 2]
            (middle if identity == "depthwise" else middle.diagonal(dim1=1, dim2=2)).add_(1)
        return filled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        sizes = ctx.block[1:]
        for dim, size in enumerate(sizes, start=1):
            if grad.shape[dim] > size:
                first, *others = torch.split(grad, size, dim)
                grad = first.clone()
                for other in others:  # the last repetition may have been cut
                    grad.narrow(dim, 0, other.shape[dim]).add_(other)
        grad = grad * ctx.gain
        if grad.shape[1:] != sizes:
            whole = grad.new_zeros(ctx.block)
            whole[tuple(slice(0, size) for size in grad.shape)] = grad
            grad = whole
        return grad, None, None, None, None


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
