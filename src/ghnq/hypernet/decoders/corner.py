"""A linear layer whose outputs form a grid, of which each group of rows needs only a leading corner.

A small tensor needs only the first out- and in-channels, and the first kernel positions, of what the decoder could predict.
Slicing the weight per group and leaving the gradient to autograd would fill one full-sized gradient per group with zeros; here
all groups add their corners into a single one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Corner = tuple[int, ...]


def corner_linear(
    inputs: Sequence[Tensor], corners: Sequence[Corner], weight: Tensor, bias: Tensor, grid: Corner
) -> tuple[Tensor, ...]:
    """For each group [n, I] and corner (a, b, ..) of the grid returns [n, a * b * ..].

    weight: [prod(grid), I]; bias: [prod(grid)].
    """
    return tuple(_CornerLinear.apply(tuple(corners), grid, weight, bias, *inputs))


def _cut(tensor: Tensor, grid: Corner, corner: Corner) -> Tensor:
    """The corner of a tensor whose first dimension is the flattened grid, as a view."""
    view = tensor.view(*grid, *tensor.shape[1:])
    return view[tuple(slice(0, c) for c in corner)]


class _CornerLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, corners: tuple[Corner, ...], grid: Corner, weight: Tensor, bias: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.corners, ctx.grid = corners, grid
        ctx.save_for_backward(weight, *inputs)
        width = weight.shape[1]
        return tuple(
            torch.addmm(
                _cut(bias, grid, corner).reshape(-1),
                x,
                _cut(weight, grid, corner).reshape(math.prod(corner), width).t(),
            )
            for x, corner in zip(inputs, corners, strict=True)
        )

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *inputs = ctx.saved_tensors
        grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[0])
        grad_inputs = []
        for x, g, corner in zip(inputs, grads, ctx.corners, strict=True):
            _cut(grad_weight, ctx.grid, corner).add_((g.t() @ x).view(*corner, -1))
            _cut(grad_bias, ctx.grid, corner).add_(g.sum(0).view(corner))
            grad_inputs.append(g @ _cut(weight, ctx.grid, corner).reshape(g.shape[1], -1))
        return None, None, grad_weight, grad_bias, *grad_inputs
