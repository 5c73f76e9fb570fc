"""One traversal of the gated graph network, with its gradient written out.

A meta-batch has some hundred topological levels of a few nodes each. Left to autograd, each level costs dozens of
tiny operations, and their dispatch, not their arithmetic, is the cost. Here a level is a few in-place operations
forward and backward (`levels_numpy`), and everything that does not depend on the order of the levels (the recurrent
half of the GRU, all weight gradients) is one matrix product over all nodes.

All of it runs on the CPU, for any device: on a GPU the launch of ten thousand small kernels would take longer than
their arithmetic, while only some hundred numbers for each node are copied there and back.

Dimensions: N nodes in level order, D hidden, J width inside the message MLPs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ghnq.graph.batching.traversal import Traversal
from ghnq.hypernet.encoders import levels_numpy
from ghnq.hypernet.encoders.traversal_state import TraversalState, TraversalWeights


class MessageWeights(NamedTuple):
    """Weights of both message MLPs: [J, D], [J], [2D, J], [2D]; the first D outputs are the direct message."""

    inner_weight: Tensor
    inner_bias: Tensor
    outer_weight: Tensor
    outer_bias: Tensor


class GateWeights(NamedTuple):
    """Weights of the GRU: [3D, D], [3D, D], [3D], [3D]; reset, update, new."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


def traverse(h_ND: Tensor, traversal: Traversal, messages: MessageWeights, gates: GateWeights) -> Tensor:
    """Returns the embeddings [N, D] of all nodes after an update level by level, on the CPU."""
    updated = _Traverse.apply(h_ND[traversal.order], traversal, *messages, *gates)  # type: ignore[no-untyped-call]
    return torch.as_tensor(updated)[traversal.rank]


class _Traverse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h0: Tensor, traversal: Traversal,
        w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor,
    ) -> Tensor:  # fmt: skip
        n, d = h0.shape
        state = TraversalState(
            h0=h0,
            gates_h=torch.addmm(b_hh, h0, w_hh.t()),  # depends on h0 only: one product for all levels
            messages_in=h0.new_empty(n, d),
            gates=h0.new_empty(n, 3 * d),
            h=torch.empty_like(h0),
            hidden=h0.new_empty(n, w1.shape[0]),
            messages_out=h0.new_empty(n, 2 * d),
        )
        weights = TraversalWeights(w1, b1, w2, b2, w_ih, b_ih)
        levels_numpy.forward(traversal, state, TraversalWeights(*(w.detach() for w in weights)))
        ctx.traversal = traversal
        ctx.save_for_backward(*state, *weights, w_hh)
        return state.h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_out: Tensor) -> tuple[Tensor | None, ...]:
        h0, gates_h, messages_in, gates, h, hidden, messages_out, *tensors = ctx.saved_tensors
        *weights, w_hh = tensors
        d = h0.shape[1]
        grad_h = grad_h_out.clone(memory_format=torch.contiguous_format)
        grad_messages_out, grad_hidden = torch.zeros_like(messages_out), torch.empty_like(hidden)
        reset, update, new = torch.split(gates, d, dim=1)
        # Derivatives of the gates do not depend on the gradients: computed for all nodes at once, so that a level only
        # multiplies them with the gradient of its state.
        d_new = (1 - update) * (1 - new * new)
        d_reset = d_new * gates_h[:, 2 * d :] * reset * (1 - reset)
        d_gates = torch.stack([d_reset, (h0 - new) * update * (1 - update), d_new], dim=1)
        grad_gates = torch.empty_like(d_gates)
        levels_numpy.backward(
            ctx.traversal,
            TraversalWeights(*(w.detach() for w in weights)),
            grad_h=grad_h,
            grad_messages_out=grad_messages_out,
            grad_hidden=grad_hidden,
            output_mask=(messages_out > 0).to(h.dtype),
            hidden_mask=(hidden > 0).to(h.dtype),
            d_gates=d_gates,
            grad_gates=grad_gates,
        )
        grad_gates_flat = grad_gates.view(-1, 3 * d)
        grad_gates_h = grad_gates.clone()
        grad_gates_h[:, 2].mul_(reset)
        grad_gates_h = grad_gates_h.view(-1, 3 * d)
        grad_h0 = torch.addmm(grad_h * update, grad_gates_h, w_hh)
        return (
            grad_h0, None,
            grad_hidden.t() @ h, grad_hidden.sum(0), grad_messages_out.t() @ hidden, grad_messages_out.sum(0),
            grad_gates_flat.t() @ messages_in, grad_gates_h.t() @ h0, grad_gates_flat.sum(0), grad_gates_h.sum(0),
        )  # fmt: skip
