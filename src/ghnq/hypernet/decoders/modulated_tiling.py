"""Tiling with a factor for every pair of channels, in one pass over the weights.

    W[s, o, i, k] = gain * block[s, o mod b, i mod c, k] * (1 + sum_r left[s, o, r] right[i, r])

The factors of a few out-channels at a time are computed into memory that stays in the cache, and the weights are
written once. Factors for the whole layer, and a multiplication after the tiling, would double the time of a
prediction. The backward pass goes through the layer in the same strips and computes the factors again.

Dimensions: S slots of a group, O/I channels of the layer, b/c of the block, K kernel height or width, R rank; in a
strip T out-channels, a whole number n of blocks or a part of one, and m repetitions of the block along I.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ghnq.hypernet.tiling import Tiling, cut

STRIP_ELEMENTS = 1 << 16
"""Factors computed at a time: 256 KiB of float32."""


def tile_modulated(block: Tensor, left: Tensor, right: Tensor, tiling: Tiling) -> Tensor:
    """Returns modulated weights [S, *tiling.shape]; the identity kernel is added last. Differentiable.

    Args:
        block: [S, b, c, K, K].
        left: Weighted codes of the out-channels, [S, O, R].
        right: Codes of the in-channels, [I, R].
    """
    return torch.as_tensor(_TileModulated.apply(block, left, right, tiling))  # type: ignore[no-untyped-call]


class _Strip(NamedTuple):
    """Out-channels start..stop of the layer, which are `blocks` repetitions of the block's first `rows` ones."""

    start: int
    stop: int
    blocks: int
    rows: int

    def tiles(self, weights: Tensor, width: int) -> Iterator[tuple[slice, Tensor]]:
        """Yields the in-channels of the layer, and a view [n, b, m, c, ...] of a slot's weights [O, I, ...]."""
        strip, i = weights[self.start : self.stop], weights.shape[1]
        whole = i - i % width
        for columns, size in ((slice(0, whole), width), (slice(whole, i), i - whole)):
            if columns.stop > columns.start:
                part = strip[:, columns]
                yield columns, torch.unflatten(torch.unflatten(part, 1, (-1, size)), 0, (self.blocks, self.rows))


def _strips(out_channels: int, in_channels: int, height: int) -> Iterator[_Strip]:
    """Divides the out-channels of a layer, for a block with `height` of them."""
    most = max(1, STRIP_ELEMENTS // (height * in_channels))
    whole = out_channels // height
    for first in range(0, whole, most):
        blocks = min(most, whole - first)
        yield _Strip(first * height, (first + blocks) * height, blocks, height)
    if out_channels % height:
        yield _Strip(whole * height, out_channels, 1, out_channels % height)


def _scaled(block: Tensor, tiling: Tiling) -> Tensor:
    """Returns gain * block without what the layer has no use for, [S, b, c, K, K], in the layout of the weights."""
    used = tiling.as_stored(cut(block, tiling.shape)).contiguous() * tiling.gain
    return used.permute(0, 1, 4, 2, 3) if tiling.channels_last else used


def _factors(left_TR: Tensor, right_RI: Tensor) -> Tensor:
    """Returns 1 + left @ right, [T, I]."""
    return torch.addmm(left_TR.new_ones(()), left_TR, right_RI)


class _TileModulated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Tensor, left: Tensor, right: Tensor, tiling: Tiling) -> Tensor:
        ctx.tiling = tiling
        ctx.save_for_backward(block, left, right)
        scaled = _scaled(block, tiling)
        weights, right_RI = tiling.empty(len(block), block), right.t().contiguous()
        out, in_ = tiling.shape[:2]
        for strip in _strips(out, in_, scaled.shape[1]):
            for s in range(len(block)):
                factors = _factors(left[s, strip.start : strip.stop], right_RI)
                _multiply(strip, scaled[s], factors, weights[s])
        tiling.add_identity(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        block, left, right = ctx.saved_tensors
        tiling: Tiling = ctx.tiling
        scaled = _scaled(block, tiling)
        grad_scaled, grad_left, grad_right = torch.zeros_like(scaled), torch.empty_like(left), torch.zeros_like(right)
        right_RI = right.t().contiguous()
        out, in_ = tiling.shape[:2]
        for strip in _strips(out, in_, scaled.shape[1]):
            for s in range(len(block)):
                left_TR = left[s, strip.start : strip.stop]
                grad_factors = _grad_strip(strip, grad[s], scaled[s], _factors(left_TR, right_RI), grad_scaled[s])
                torch.mm(grad_factors, right, out=grad_left[s, strip.start : strip.stop])
                grad_right.addmm_(grad_factors.t(), left_TR)
        grad_block = torch.zeros_like(block)
        torch.mul(grad_scaled, tiling.gain, out=cut(grad_block, tiling.shape))
        return grad_block, grad_left, grad_right, None


def _multiply(strip: _Strip, scaled: Tensor, factors: Tensor, weights: Tensor) -> None:
    """Writes a strip of one slot's weights [O, I, K, K]."""
    for columns, target in strip.tiles(weights, scaled.shape[1]):
        gain = factors[:, columns].view(target.shape[:4])[..., None, None]
        torch.mul(scaled[None, : strip.rows, None, : target.shape[3]], gain, out=target)


def _grad_strip(strip: _Strip, grad: Tensor, scaled: Tensor, factors: Tensor, grad_scaled: Tensor) -> Tensor:
    """Adds to the gradient [b, c, K, K] of the scaled block of one slot; returns that of the factors, [T, I]."""
    grad_factors = torch.empty_like(factors)
    for columns, part in strip.tiles(grad, scaled.shape[1]):
        size = part.shape[3]
        gain = factors[:, columns].view(part.shape[:4])[..., None, None]
        grad_scaled[: strip.rows, :size].add_((part * gain).sum((0, 2)))
        block = scaled[None, : strip.rows, None, :size]
        grad_factors[:, columns] = (part * block).sum((4, 5)).flatten(2).flatten(0, 1)
    return grad_factors
