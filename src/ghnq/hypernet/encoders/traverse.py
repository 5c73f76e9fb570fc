"""One traversal of the gated graph network, with its gradient written out.

A meta-batch has some hundred topological levels of a few nodes each. Left to autograd, each level costs dozens of
tiny operations, and their dispatch, not their arithmetic, is the cost. Here a level is about ten in-place operations
forward and as many backward, and everything that does not depend on the order of the levels (the recurrent half of the
GRU, all weight gradients) is one matrix product over all nodes.

Dimensions: N nodes in level order, D hidden, J width inside the message MLPs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ghnq.graph.batch import Traversal


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
        gates_h = torch.addmm(b_hh, h0, w_hh.t())  # the recurrent half sees h0 only: one product for all levels
        h, heard, gates = torch.empty_like(h0), h0.new_empty(n, d), h0.new_empty(n, 3 * d)
        inner, said = h0.new_empty(n, w1.shape[0]), h0.new_empty(n, 2 * d)
        w1_t, w2_t, w_ih_t = w1.t(), w2.t(), w_ih.t()
        bounds = traversal.bounds
        for a, b, weights in zip(bounds[:-1], bounds[1:], traversal.weights, strict=True):
            m = torch.mm(weights, said[:a].view(2 * a, d), out=heard[a:b])
            gate = torch.addmm(b_ih, m, w_ih_t, out=gates[a:b])
            reset_update = gate[:, : 2 * d].add_(gates_h[a:b, : 2 * d]).sigmoid_()
            new = gate[:, 2 * d :].addcmul_(reset_update[:, :d], gates_h[a:b, 2 * d :]).tanh_()
            state = torch.lerp(new, h0[a:b], reset_update[:, d:], out=h[a:b])
            hidden = torch.addmm(b1, state, w1_t, out=inner[a:b]).relu_()
            torch.addmm(b2, hidden, w2_t, out=said[a:b]).relu_()
        ctx.traversal = traversal
        ctx.save_for_backward(h0, h, heard, gates, gates_h, inner, said, w1, w2, w_ih, w_hh)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_out: Tensor) -> tuple[Tensor | None, ...]:
        h0, h, heard, gates, gates_h, inner, said, w1, w2, w_ih, w_hh = ctx.saved_tensors
        n, d = h0.shape
        grad_h = grad_h_out.clone(memory_format=torch.contiguous_format)
        grad_said = torch.zeros_like(said)
        grad_inner = torch.empty_like(inner)
        grad_gates_i, grad_gates_h = torch.empty_like(gates), torch.empty_like(gates)
        spoke, fired = (said > 0).to(h.dtype), (inner > 0).to(h.dtype)
        reset, update, new = gates.split(d, dim=1)
        # Derivatives of the gates do not depend on the gradients: computed for all nodes at once.
        d_new = (1 - update) * (1 - new * new)
        d_update = (h0 - new) * update * (1 - update)
        d_reset = gates_h[:, 2 * d :] * reset * (1 - reset)
        bounds, weights = ctx.traversal.bounds, ctx.traversal.weights
        for level in range(len(weights) - 1, -1, -1):
            a, b = bounds[level], bounds[level + 1]
            if b < n:  # the last level tells nobody anything
                g_said = grad_said[a:b].mul_(spoke[a:b])
                g_inner = torch.mm(g_said, w2, out=grad_inner[a:b]).mul_(fired[a:b])
                grad_h[a:b].addmm_(g_inner, w1)
            else:
                grad_inner[a:b].zero_()
            g = grad_h[a:b]
            g_gates = grad_gates_i[a:b]
            torch.mul(g, d_new[a:b], out=g_gates[:, 2 * d :])
            torch.mul(g, d_update[a:b], out=g_gates[:, d : 2 * d])
            torch.mul(g_gates[:, 2 * d :], d_reset[a:b], out=g_gates[:, :d])
            if a:
                grad_said[:a].view(2 * a, d).addmm_(weights[level].t(), g_gates @ w_ih)
        grad_gates_h[:, : 2 * d] = grad_gates_i[:, : 2 * d]
        torch.mul(grad_gates_i[:, 2 * d :], reset, out=grad_gates_h[:, 2 * d :])
        grad_h0 = torch.addmm(grad_h * update, grad_gates_h, w_hh)
        return (
            grad_h0, None,
            grad_inner.t() @ h, grad_inner.sum(0), grad_said.t() @ inner, grad_said.sum(0),
            grad_gates_i.t() @ heard, grad_gates_h.t() @ h0, grad_gates_i.sum(0), grad_gates_h.sum(0),
        )  # fmt: skip
