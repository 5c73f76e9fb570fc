"""A linear layer whose outputs form a grid, of which each group of rows needs only a part: mostly, a leading corner.

A small tensor needs only the first out- and in-channels, and the first kernel positions, of what the decoder could
predict. Groups of similar corners share one matrix product, of the smallest corner that holds them all: cutting the
weight for every group alone would read the weight more often than it multiplies with it. All gradients go into a
single one of the weight's size; autograd would fill one with zeros per cut.

Dimensions: P rows of all groups, J inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Corner = tuple[int, ...]
_Place = tuple[Corner, Corner]


@dataclass(frozen=True, slots=True)
class Rows:
    """A group: how many rows it has, the corner it needs, and the corner that is computed for it.

    start: where in the grid the corner lies; at its origin if empty.
    """

    count: int
    corner: Corner
    computed: Corner
    start: Corner = ()


def round_up(size: int, most: int) -> int:
    """One, a quarter, a half or the whole of `most`, whichever is the first to hold `size`."""
    return next(c for c in (1, -(-most // 4), -(-most // 2), most) if size <= c)


def corner_linear(x: Tensor, groups: Sequence[Rows], weight: Tensor, bias: Tensor, grid: Corner) -> list[Tensor]:
    """For each group, whose rows follow each other in x [P, J], returns [count, *corner].

    weight: [prod(grid), J]; bias: [prod(grid)]. Neighbouring groups with the same `computed` corner share a product.
    """
    if not groups:
        return []
    return list(_CornerLinear.apply(x, weight, bias, tuple(groups), grid))  # type: ignore[no-untyped-call]


def _cut(tensor: Tensor, grid: Corner, place: _Place) -> Tensor:
    """The part of a tensor whose first dimension is the flattened grid, as a view."""
    corner, start = place
    starts = start or (0,) * len(corner)
    return tensor.view(*grid, *tensor.shape[1:])[tuple(slice(s, s + c) for s, c in zip(starts, corner, strict=True))]


def _blocks(groups: Sequence[Rows]) -> list[tuple[_Place, int, list[Rows]]]:
    """Runs of groups that share a product: (corner and its start, number of rows, groups)."""
    runs = [(place, list(run)) for place, run in groupby(groups, key=lambda g: (g.computed, g.start))]
    return [(place, sum(g.count for g in run), run) for place, run in runs]


def _members(product: Tensor, corner: Corner, groups: list[Rows]) -> list[Tensor]:
    """The part of a shared product [rows, prod(corner)] that belongs to each group, as views."""
    parts = torch.split(product.view(-1, *corner), [g.count for g in groups])
    return [p[(slice(None), *(slice(0, c) for c in g.corner))] for p, g in zip(parts, groups, strict=True)]


class _CornerLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: tuple[Rows, ...], grid: Corner
    ) -> tuple[Tensor, ...]:
        ctx.groups, ctx.grid = groups, grid
        ctx.save_for_backward(x, weight)
        outputs, start = [], 0
        for place, rows, members in _blocks(groups):
            corner = place[0]
            cut = _cut(weight, grid, place).reshape(math.prod(corner), -1)
            product = torch.addmm(_cut(bias, grid, place).reshape(-1), x[start : start + rows], cut.t())
            outputs += _members(product, corner, members)
            start += rows
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[0])
        grad_x, start, remaining = torch.empty_like(x), 0, iter(grads)
        for place, rows, members in _blocks(ctx.groups):
            corner = place[0]
            grad = x.new_zeros(rows, math.prod(corner))
            for part, g in zip(_members(grad, corner, members), remaining, strict=False):
                part.copy_(g)
            block = slice(start, start + rows)
            cut = _cut(weight, ctx.grid, place).reshape(math.prod(corner), -1)
            torch.mm(grad, cut, out=grad_x[block])
            _cut(grad_weight, ctx.grid, place).add_((grad.t() @ x[block]).view(*corner, -1))
            _cut(grad_bias, ctx.grid, place).add_(grad.sum(0).view(corner))
            start += rows
        return grad_x, grad_weight, grad_bias, None, None
