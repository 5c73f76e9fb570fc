"""One traversal of the gated graph network, with its gradient written out.

A meta-batch has some hundred topological levels of a few nodes each. Left to autograd, each level costs dozens of
tiny operations, and their dispatch, not their arithmetic, is the cost. Here a level is about ten in-place operations
forward and as many backward, and everything that does not depend on the order of the levels (the recurrent half of the
GRU, all weight gradients) is one matrix product over all nodes. Levels are views made once per buffer: even slicing is
dispatch.

Dimensions: N nodes in level order, D hidden, J width inside the message MLPs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ghnq.graph.traversal import Traversal


class Messages(NamedTuple):
    """Weights of both message MLPs: [J, D], [J], [2D, J], [2D]; the first D outputs are the direct message."""

    inner_weight: Tensor
    inner_bias: Tensor
    outer_weight: Tensor
    outer_bias: Tensor


def traverse(h: Tensor, traversal: Traversal, messages: Messages, gru: nn.GRUCell) -> Tensor:
    """Updates all nodes level by level, [N, D] -> [N, D]."""
    updated = _Traverse.apply(  # type: ignore[no-untyped-call]
        h[traversal.order], traversal, *messages, gru.weight_ih, gru.weight_hh, gru.bias_ih, gru.bias_hh
    )
    return torch.as_tensor(updated)[traversal.rank]


class _Traverse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h0: Tensor, traversal: Traversal,
        w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor,
    ) -> Tensor:  # fmt: skip
        n, d = h0.shape
        sizes = _level_sizes(traversal)
        gates_h = torch.addmm(b_hh, h0, w_hh.t())  # the recurrent half sees h0 only: one product for all levels
        h, heard, gates = torch.empty_like(h0), h0.new_empty(n, d), h0.new_empty(n, 3 * d)
        inner, said = h0.new_empty(n, w1.shape[0]), h0.new_empty(n, 2 * d)
        w1_t, w2_t, w_ih_t = w1.t(), w2.t(), w_ih.t()
        levels = zip(
            traversal.weights,
            _said_before(said, traversal),
            *_by_level(sizes, heard, gates),
            *_by_level(sizes, *(gates[:, i * d : j * d] for i, j in ((0, 1), (1, 2), (0, 2), (2, 3)))),
            *_by_level(sizes, gates_h[:, : 2 * d], gates_h[:, 2 * d :], h0, h, inner, said),
            strict=True,
        )
        for weights, before, m, gate, reset, update, both, new, both_h, new_h, state0, state, hidden, saying in levels:
            torch.mm(weights, before, out=m)
            torch.addmm(b_ih, m, w_ih_t, out=gate)
            both.add_(both_h).sigmoid_()
            new.addcmul_(reset, new_h).tanh_()
            torch.lerp(new, state0, update, out=state)
            torch.addmm(b1, state, w1_t, out=hidden).relu_()
            torch.addmm(b2, hidden, w2_t, out=saying).relu_()
        ctx.traversal = traversal
        ctx.save_for_backward(h0, h, heard, gates, gates_h, inner, said, w1, w2, w_ih, w_hh)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_out: Tensor) -> tuple[Tensor | None, ...]:
        h0, h, heard, gates, gates_h, inner, said, w1, w2, w_ih, w_hh = ctx.saved_tensors
        d = h0.shape[1]
        sizes = _level_sizes(ctx.traversal)
        grad_h = grad_h_out.clone(memory_format=torch.contiguous_format)
        grad_said, grad_inner = torch.zeros_like(said), torch.empty_like(inner)
        spoke, fired = (said > 0).to(h.dtype), (inner > 0).to(h.dtype)
        reset, update, new = torch.split(gates, d, dim=1)
        # Derivatives of the gates do not depend on the gradients: computed for all nodes at once, so that a level only
        # multiplies them with the gradient of its state.
        d_new = (1 - update) * (1 - new * new)
        d_reset = d_new * gates_h[:, 2 * d :] * reset * (1 - reset)
        d_gates = torch.stack([d_reset, (h0 - new) * update * (1 - update), d_new], dim=1)
        grad_gates = torch.empty_like(d_gates)
        grad_gates_flat = grad_gates.view(-1, 3 * d)
        levels = zip(
            ctx.traversal.weights,
            _said_before(grad_said, ctx.traversal),
            *_by_level(sizes, grad_said, spoke, grad_inner, fired),
            *_by_level(sizes, grad_h, grad_h[:, None], d_gates, grad_gates, grad_gates_flat),
            strict=True,
        )
        for weights, before, g_said, spoken, g_inner, firing, g, g3, d_gate, g_gate, g_flat in reversed(list(levels)):
            torch.mm(g_said.mul_(spoken), w2, out=g_inner)
            g.addmm_(g_inner.mul_(firing), w1)
            torch.mul(g3, d_gate, out=g_gate)
            before.addmm_(weights.t(), torch.mm(g_flat, w_ih))
        grad_gates_h = grad_gates.clone()
        grad_gates_h[:, 2].mul_(reset)
        grad_gates_h = grad_gates_h.view(-1, 3 * d)
        grad_h0 = torch.addmm(grad_h * update, grad_gates_h, w_hh)
        return (
            grad_h0, None,
            grad_inner.t() @ h, grad_inner.sum(0), grad_said.t() @ inner, grad_said.sum(0),
            grad_gates_flat.t() @ heard, grad_gates_h.t() @ h0, grad_gates_flat.sum(0), grad_gates_h.sum(0),
        )  # fmt: skip


def _level_sizes(traversal: Traversal) -> list[int]:
    return [b - a for a, b in zip(traversal.bounds, traversal.bounds[1:], strict=False)]


def _by_level(sizes: list[int], *buffers: Tensor) -> list[tuple[Tensor, ...]]:
    """Each buffer [N, ...] as views of its levels."""
    return [torch.split(buffer, sizes) for buffer in buffers]


def _said_before(said: Tensor, traversal: Traversal) -> list[Tensor]:
    """For each level what the nodes before it said, from the first that it hears: direct and virtual messages in turn.

    [N, 2D] -> per level [2 * (nodes), D].
    """
    by_message = said.view(2 * len(said), -1)
    return [by_message[2 * a : 2 * b] for a, b in zip(traversal.starts, traversal.bounds, strict=False)]
