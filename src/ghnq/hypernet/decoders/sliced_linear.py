"""A linear layer whose outputs form a grid, of which each group of rows needs only a part: mostly, a leading corner.

A small tensor needs only the first out- and in-channels, and the first kernel positions, of what the decoder could
predict. Groups whose corners are alike but for the first dimension share a block: the weight is cut for it once, or,
where all but the first dimension is whole, not at all. In a block the groups that reach furthest along the first
dimension come first, so each strip of it is one product with the first rows. All gradients go into a single one of the
weight's size; autograd would fill one with zeros per cut.

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

Corner = tuple[int, ...]

STRIP = 8
"""Along the first dimension, what is computed is a multiple of this."""


class Finish(Protocol):
    """Turns a group's outputs [count, *corner] into what is returned for it, without a pass over them in between."""

    def forward(self, part: Tensor) -> Tensor:
        """What is returned; new memory."""

    def backward(self, grad: Tensor, part: Tensor) -> None:
        """Writes the gradient of the outputs into `part` [count, *corner], given that of what was returned."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A group: how many rows it has, the corner it needs, and the corner that is computed for it.

    start: where in the grid the corner lies; at its origin if empty. finish: what becomes of its outputs; absent: they
    are returned.
    """

    count: int
    corner: Corner
    computed: Corner
    start: Corner = ()
    finish: Finish | None = None


def round_up(size: int, most: int) -> int:
    """One, a quarter, a half or the whole of `most`, whichever is the first to hold `size`."""
    return next(c for c in (1, -(-most // 4), -(-most // 2), most) if size <= c)


def round_to_strip(size: int, most: int) -> int:
    """The next multiple of STRIP, at most `most`."""
    return min(most, -(-size // STRIP) * STRIP)


def corner_linear(x: Tensor, groups: Sequence[Rows], weight: Tensor, bias: Tensor, grid: Corner) -> list[Tensor]:
    """For each group, whose rows follow each other in x [P, J], returns [count, *corner], or that finished.

    weight: [prod(grid), J]; bias: [prod(grid)]. Neighbouring groups whose `computed` corners differ in nothing but a
    first dimension that does not rise share a block.
    """
    if not groups:
        return []
    return list(_CornerLinear.apply(x, weight, bias, tuple(groups), grid))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Block:
    """Groups that share a cut of the weight, and the first of their rows in x.

    strips: (from, to, rows): this part of the first dimension is computed for so many rows, the first of the block.
    """

    groups: tuple[Rows, ...]
    first: int
    rows: int
    strips: tuple[tuple[int, int, int], ...]

    @property
    def corner(self) -> Corner:
        """What is computed for the group that reaches furthest."""
        return self.groups[0].computed

    @property
    def cells(self) -> int:
        return math.prod(self.corner[1:])

    def cut(self, tensor: Tensor, grid: Corner) -> Tensor:
        """The block's part of a tensor [prod(grid), ...], as a view [*corner, ...]."""
        starts = self.groups[0].start or (0,) * len(grid)
        places = tuple(slice(s, s + c) for s, c in zip(starts, self.corner, strict=True))
        return tensor.view(*grid, *tensor.shape[1:])[places]

    def members(self, product: Tensor) -> Iterator[tuple[Rows, Tensor]]:
        """Each group, and what is computed for it, a view [count, *computed] of a product [R, F * C]."""
        parts = torch.split(product.view(-1, *self.corner), [g.count for g in self.groups])
        for group, part in zip(self.groups, parts, strict=True):
            yield group, part[:, : group.computed[0]]


def _blocks(groups: Sequence[Rows]) -> Iterator[_Block]:
    first, run = 0, [groups[0]]
    for group in groups[1:]:
        if _joins(group, run[-1]):
            run.append(group)
            continue
        yield _block(run, first)
        first, run = first + sum(g.count for g in run), [group]
    yield _block(run, first)


def _joins(group: Rows, last: Rows) -> bool:
    same = (group.computed[1:], group.start) == (last.computed[1:], last.start)
    return same and group.computed[0] <= last.computed[0]


def _block(run: list[Rows], first: int) -> _Block:
    reached = [(size, sum(g.count for g in some)) for size, some in groupby(run, key=lambda g: g.computed[0])]
    rows = list(accumulate(count for _, count in reached))
    sizes = [*(size for size, _ in reached), 0]
    strips = tuple((low, high, n) for (high, low), n in zip(pairwise(sizes), rows, strict=True))
    return _Block(tuple(run), first, rows[-1], strips)


def _inside(part: Tensor, corner: Corner) -> Tensor:
    """The corner that a group needs, of what is computed for it."""
    return part if part.shape[1:] == corner else part[(slice(None), *(slice(0, c) for c in corner))]


class _CornerLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: tuple[Rows, ...], grid: Corner
    ) -> tuple[Tensor, ...]:
        ctx.blocks, ctx.grid = tuple(_blocks(groups)), grid
        ctx.save_for_backward(x, weight)
        outputs: list[Tensor] = []
        for block in ctx.blocks:
            cut, shift = block.cut(weight, grid).reshape(-1, weight.shape[1]), block.cut(bias, grid).reshape(-1)
            product = x.new_empty(block.rows, len(cut))
            for low, high, rows in block.strips:
                strip = slice(low * block.cells, high * block.cells)
                part = x[block.first : block.first + rows]
                torch.addmm(shift[strip], part, cut[strip].t(), out=product[:rows, strip])
            for group, part in block.members(product):
                inside = _inside(part, group.corner)
                outputs.append(inside if group.finish is None else group.finish.forward(inside))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[0])
        grad_x, remaining = torch.zeros_like(x), iter(grads)
        for block in ctx.blocks:
            cut = block.cut(weight, ctx.grid).reshape(-1, weight.shape[1])
            grad = x.new_empty(block.rows, len(cut))
            for group, part in block.members(grad):
                if group.corner != group.computed:
                    part.zero_()
                inside, given = _inside(part, group.corner), next(remaining)
                if group.finish is None:
                    inside.copy_(given)
                else:
                    group.finish.backward(given, inside)
            place = block.cut(grad_weight, ctx.grid)
            whole = place.is_contiguous()
            grad_cut = place.view(cut.shape) if whole else torch.zeros_like(cut)
            grad_shift = grad.new_zeros(len(cut))
            for low, high, rows in block.strips:
                strip = slice(low * block.cells, high * block.cells)
                part, mine = grad[:rows, strip], slice(block.first, block.first + rows)
                grad_x[mine].addmm_(part, cut[strip])
                grad_cut[strip].addmm_(part.t(), x[mine])
                torch.sum(part, 0, out=grad_shift[strip])
            if not whole:
                place.add_(grad_cut.view(place.shape))
            block.cut(grad_bias, ctx.grid).add_(grad_shift.view(block.corner))
        return grad_x, grad_weight, grad_bias, None, None
