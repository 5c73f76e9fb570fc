"""Tiling with a factor for every pair of channels, in one pass over the weights.

    W[s, o, i, k] = gain * block[s, o mod b, i mod c, k] * (1 + sum_r left[s, o, r] right[i, r])

The factors of a few out-channels at a time are computed into memory that stays in the cache, and the weights are
written once. Factors for the whole layer, and a multiplication after the tiling, would double the time of a
prediction. The backward pass goes through the layer in the same strips and computes the factors again.

Dimensions: S slots of a group, O/I channels of the layer, b/c of the block, K kernel height or width, R rank; in a
strip p slots and T out-channels, n repetitions of the block along O and m along I.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ghnq.graph.ir import Shape
from ghnq.hypernet.tiling import Tiling, cut, tile

STRIP_ELEMENTS = 1 << 17
"""Factors computed at a time: 512 KiB of float32."""


def tile_modulated(block: Tensor, left: Tensor, right: Tensor, tiling: Tiling) -> Tensor:
    """Returns modulated weights [S, *tiling.shape]; the identity kernel is added last. Differentiable.

    Args:
        block: [S, b, c, K, K]; a smaller kernel is repeated as well.
        left: Weighted codes of the out-channels, [S, O, R].
        right: Codes of the in-channels, [I, R].
    """
    block = tile(block, (*block.shape[1:3], *tiling.shape[2:]))
    return torch.as_tensor(_TileModulated.apply(block, left, right, tiling))  # type: ignore[no-untyped-call]


class _Strip(NamedTuple):
    """Some out-channels of some slots.

    Attributes:
        slots: Slots of the group.
        channels: Out-channels of the layer: n repetitions of the first `rows` of the block.
    """

    slots: slice
    channels: slice
    rows: int

    def tiles(self, weights: Tensor, width: int) -> Iterator[tuple[slice, Tensor]]:
        """Yields in-channels of the layer, and a view [p, n, b, m, c, ...] of these weights of [S, O, I, ...]."""
        strip, i = weights[self.slots, self.channels], weights.shape[2]
        whole = i - i % width
        for columns, size in ((slice(0, whole), width), (slice(whole, i), i - whole)):
            if columns.stop > columns.start:
                by_block = torch.unflatten(strip[:, :, columns], 2, (-1, size))
                yield columns, torch.unflatten(by_block, 1, (-1, self.rows))

    def block(self, scaled: Tensor, tiles: Tensor) -> Tensor:
        """Returns what of the blocks [S, b, c, K, K] is repeated in these tiles, [p, 1, b, 1, c, K, K]."""
        return scaled[self.slots, None, : self.rows, None, : tiles.shape[4]]


def _strips(slots: int, shape: Shape, height: int) -> Iterator[_Strip]:
    """Divides the weights of a group, for a block with `height` out-channels."""
    out_channels, in_channels = shape[:2]
    whole = out_channels - out_channels % height
    for first, last, rows in ((0, whole, height), (whole, out_channels, out_channels - whole)):
        if first == last:
            continue
        blocks = max(1, STRIP_ELEMENTS // (rows * in_channels))
        together = max(1, STRIP_ELEMENTS // ((last - first) * in_channels))
        for s in range(0, slots, together):
            for channel in range(first, last, blocks * rows):
                channels = slice(channel, min(last, channel + blocks * rows))
                yield _Strip(slice(s, min(slots, s + together)), channels, rows)


def _scaled(block: Tensor, tiling: Tiling) -> Tensor:
    """Returns gain * block without what the layer has no use for, [S, b, c, K, K], in the layout of the weights."""
    used = tiling.as_stored(cut(block, tiling.shape)).contiguous() * tiling.gain
    return used.permute(0, 1, 4, 2, 3) if tiling.channels_last else used


def _factors(left: Tensor, right_RI: Tensor) -> Tensor:
    """Returns 1 + left @ right, [p, T, I], for left [p, T, R]."""
    factors = torch.addmm(left.new_ones(()), left.reshape(-1, left.shape[2]), right_RI)
    return factors.view(*left.shape[:2], -1)


class _TileModulated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Tensor, left: Tensor, right: Tensor, tiling: Tiling) -> Tensor:
        ctx.tiling = tiling
        ctx.save_for_backward(block, left, right)
        scaled, right_RI = _scaled(block, tiling), right.t().contiguous()
        weights = tiling.empty(len(block), block)
        for strip in _strips(len(block), tiling.shape, scaled.shape[1]):
            factors = _factors(left[strip.slots, strip.channels], right_RI)
            for columns, target in strip.tiles(weights, scaled.shape[2]):
                torch.mul(strip.block(scaled, target), _as_tiles(factors, columns, target), out=target)
        tiling.add_identity(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        block, left, right = ctx.saved_tensors
        tiling: Tiling = ctx.tiling
        scaled, right_RI = _scaled(block, tiling), right.t().contiguous()
        grad_scaled, grad_left, grad_right = torch.zeros_like(scaled), torch.empty_like(left), torch.zeros_like(right)
        for strip in _strips(len(block), tiling.shape, scaled.shape[1]):
            left_pTR = left[strip.slots, strip.channels]
            factors = _factors(left_pTR, right_RI)
            grad_factors = torch.empty_like(factors)
            for columns, part in strip.tiles(grad, scaled.shape[2]):
                by_tile = _as_tiles(factors, columns, part)
                grad_scaled[strip.slots, : strip.rows, : part.shape[4]] += (part * by_tile).sum((1, 3))
                products = (part * strip.block(scaled, part)).sum((5, 6))
                grad_factors[:, :, columns] = products.flatten(3).flatten(1, 2)
            grad_left[strip.slots, strip.channels] = grad_factors @ right
            grad_right.addmm_(grad_factors.flatten(0, 1).t(), left_pTR.flatten(0, 1))
        grad_block = torch.zeros_like(block)
        torch.mul(grad_scaled, tiling.gain, out=cut(grad_block, tiling.shape))
        return grad_block, grad_left, grad_right, None


def _as_tiles(factors: Tensor, columns: slice, tiles: Tensor) -> Tensor:
    """Returns factors [p, T, I] of some in-channels so that they multiply tiles [p, n, b, m, c, K, K]."""
    return factors[:, :, columns].view(tiles.shape[:5])[..., None, None]
