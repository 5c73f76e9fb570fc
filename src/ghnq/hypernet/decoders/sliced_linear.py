"""A linear layer whose outputs form a grid, of which each group of rows needs only a slice: mostly, the first entries.

A small tensor needs only the first out- and in-channels, and the first kernel positions, of what the decoder could
predict. Groups whose slices differ only in the first dimension share a block: the weight is sliced for it once, or,
where all other dimensions are whole, not at all. In a block the groups that need most of the first dimension come
first, so each strip of it is one product with the first rows. All gradients go into a single one of the weight's size;
autograd would fill one with zeros per slice.

Dimensions: P rows of all groups, J inputs; in a block R rows, F the first dimension of the grid, C cells of the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ghnq.graph.ir import Shape

STRIP = 8
"""Along the first dimension, what is computed is a multiple of this."""


class Epilogue(Protocol):
    """Turns a group's outputs [count, *sizes] into what is returned for it, without a pass over them in between."""

    def forward(self, part: Tensor) -> Tensor:
        """Returns the result, in new memory."""

    def backward(self, grad: Tensor, part: Tensor) -> None:
        """Writes the gradient of the outputs into `part` [count, *sizes], given that of the result."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that need the same slice of the outputs.

    Attributes:
        count: The number of rows.
        sizes: The sizes of the slice, one for each dimension of the grid.
        computed: The sizes of what is computed, at least as large.
        start: Where in the grid the slice starts; empty: at the origin.
        epilogue: What the outputs are turned into; None: they are returned.
    """

    count: int
    sizes: Shape
    computed: Shape
    start: Shape = ()
    epilogue: Epilogue | None = None


def round_up(size: int, most: int) -> int:
    """Returns the smallest of one, a quarter, a half and the whole of `most` that is at least `size`."""
    return next(c for c in (1, -(-most // 4), -(-most // 2), most) if size <= c)


def round_to_strip(size: int, most: int) -> int:
    """Returns the next multiple of STRIP, or `most` if that is smaller."""
    return min(most, -(-size // STRIP) * STRIP)


def sliced_linear(x_PJ: Tensor, groups: Sequence[RowGroup], weight: Tensor, bias: Tensor, grid: Shape) -> list[Tensor]:
    """Returns for each group the outputs [count, *sizes] of its rows, or the result of its epilogue.

    Neighbouring groups share a block if their `computed` sizes differ in nothing but a first dimension that does not
    rise.

    Args:
        x_PJ: The rows of all groups, in order.
        weight: [prod(grid), J].
        bias: [prod(grid)].
        grid: The sizes of the grid that the outputs form.
    """
    if not groups:
        return []
    return list(_SlicedLinear.apply(x_PJ, weight, bias, tuple(groups), grid))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Block:
    """Groups that share a slice of the weight.

    Attributes:
        first: The first of their rows in x.
        rows: The number of their rows, R.
        strips: (from, to, rows): this part of the first dimension is computed for the first so many rows of the block.
    """

    groups: tuple[RowGroup, ...]
    first: int
    rows: int
    strips: tuple[tuple[int, int, int], ...]

    @property
    def sizes(self) -> Shape:
        """The sizes of what is computed for the group that needs most."""
        return self.groups[0].computed

    @property
    def cells(self) -> int:
        """The number of cells of all dimensions but the first, C."""
        return math.prod(self.sizes[1:])

    def part_of(self, tensor: Tensor, grid: Shape) -> Tensor:
        """Returns the block's part of a tensor [prod(grid), ...], a view [*sizes, ...]."""
        starts = self.groups[0].start or (0,) * len(grid)
        slices = tuple(slice(a, a + size) for a, size in zip(starts, self.sizes, strict=True))
        return tensor.view(*grid, *tensor.shape[1:])[slices]

    def members(self, product: Tensor) -> Iterator[tuple[RowGroup, Tensor]]:
        """Yields each group, and what is computed for it: a view [count, *computed] of a product [R, F * C]."""
        parts = torch.split(product.view(-1, *self.sizes), [g.count for g in self.groups])
        for group, part in zip(self.groups, parts, strict=True):
            yield group, part[:, : group.computed[0]]


def _blocks(groups: Sequence[RowGroup]) -> Iterator[_Block]:
    first, run = 0, [groups[0]]
    for group in groups[1:]:
        if _joins(group, run[-1]):
            run.append(group)
            continue
        yield _block(run, first)
        first, run = first + sum(g.count for g in run), [group]
    yield _block(run, first)


def _joins(group: RowGroup, last: RowGroup) -> bool:
    same = (group.computed[1:], group.start) == (last.computed[1:], last.start)
    return same and group.computed[0] <= last.computed[0]


def _block(run: list[RowGroup], first: int) -> _Block:
    reached = [(size, sum(g.count for g in some)) for size, some in groupby(run, key=lambda g: g.computed[0])]
    rows = list(accumulate(count for _, count in reached))
    sizes = [*(size for size, _ in reached), 0]
    strips = tuple((low, high, n) for (high, low), n in zip(pairwise(sizes), rows, strict=True))
    return _Block(tuple(run), first, rows[-1], strips)


def _needed(part: Tensor, sizes: Shape) -> Tensor:
    """Returns what a group needs [count, *sizes] of what is computed for it."""
    return part if part.shape[1:] == sizes else part[(slice(None), *(slice(0, size) for size in sizes))]


class _SlicedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: tuple[RowGroup, ...], grid: Shape
    ) -> tuple[Tensor, ...]:
        ctx.blocks, ctx.grid = tuple(_blocks(groups)), grid
        ctx.save_for_backward(x, weight)
        outputs: list[Tensor] = []
        for block in ctx.blocks:
            part_weight, part_bias = (
                block.part_of(weight, grid).reshape(-1, weight.shape[1]),
                block.part_of(bias, grid).reshape(-1),
            )
            product = x.new_empty(block.rows, len(part_weight))
            for low, high, rows in block.strips:
                strip = slice(low * block.cells, high * block.cells)
                part = x[block.first : block.first + rows]
                torch.addmm(part_bias[strip], part, part_weight[strip].t(), out=product[:rows, strip])
            for group, part in block.members(product):
                needed = _needed(part, group.sizes)
                outputs.append(needed if group.epilogue is None else group.epilogue.forward(needed))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[0])
        grad_x, remaining = torch.zeros_like(x), iter(grads)
        for block in ctx.blocks:
            part_weight = block.part_of(weight, ctx.grid).reshape(-1, weight.shape[1])
            grad = x.new_empty(block.rows, len(part_weight))
            for group, part in block.members(grad):
                if group.sizes != group.computed:
                    part.zero_()
                needed, given = _needed(part, group.sizes), next(remaining)
                if group.epilogue is None:
                    needed.copy_(given)
                else:
                    group.epilogue.backward(given, needed)
            target = block.part_of(grad_weight, ctx.grid)
            whole = target.is_contiguous()
            grad_part_weight = target.view(part_weight.shape) if whole else torch.zeros_like(part_weight)
            grad_part_bias = grad.new_zeros(len(part_weight))
            for low, high, rows in block.strips:
                strip = slice(low * block.cells, high * block.cells)
                part, mine = grad[:rows, strip], slice(block.first, block.first + rows)
                grad_x[mine].addmm_(part, part_weight[strip])
                grad_part_weight[strip].addmm_(part.t(), x[mine])
                torch.sum(part, 0, out=grad_part_bias[strip])
            if not whole:
                target.add_(grad_part_weight.view(target.shape))
            block.part_of(grad_bias, ctx.grid).add_(grad_part_bias.view(block.sizes))
        return grad_x, grad_weight, grad_bias, None, None
