"""The loops over topological levels in torch: the oracle of `levels_numpy`.

Levels are views made once per buffer: even slicing is dispatch. Dimensions and names: see `traverse`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ghnq.graph.batching.traversal import Traversal
from ghnq.hypernet.encoders.traversal_state import TraversalState, TraversalWeights


def forward(traversal: Traversal, s: TraversalState, w: TraversalWeights) -> None:
    """Fills `messages_in`, `gates`, `h`, `hidden` and `messages_out`, level by level."""
    d = s.h.shape[1]
    sizes = _level_sizes(traversal)
    w1_t, w2_t, w_ih_t = w.w1.t(), w.w2.t(), w.w_ih.t()
    levels = zip(
        traversal.weights,
        _messages_before(s.messages_out, traversal),
        *_by_level(sizes, s.messages_in, s.gates),
        *_by_level(sizes, *(s.gates[:, i * d : j * d] for i, j in ((0, 1), (1, 2), (0, 2), (2, 3)))),
        *_by_level(sizes, s.gates_h[:, : 2 * d], s.gates_h[:, 2 * d :], s.h0, s.h, s.hidden, s.messages_out),
        strict=True,
    )
    for weights, before, m, gate, reset, update, both, new, both_h, new_h, state0, state, hidden, out in levels:
        torch.mm(weights, before, out=m)
        torch.addmm(w.b_ih, m, w_ih_t, out=gate)
        both.add_(both_h).sigmoid_()
        new.addcmul_(reset, new_h).tanh_()
        torch.lerp(new, state0, update, out=state)
        torch.addmm(w.b1, state, w1_t, out=hidden).relu_()
        torch.addmm(w.b2, hidden, w2_t, out=out).relu_()


def backward(
    traversal: Traversal, w: TraversalWeights, *, grad_h: Tensor, grad_messages_out: Tensor, grad_hidden: Tensor,
    output_mask: Tensor, hidden_mask: Tensor, d_gates: Tensor, grad_gates: Tensor,
) -> None:  # fmt: skip
    """Fills `grad_messages_out`, `grad_hidden` and `grad_gates`, and completes `grad_h`, from the last level on."""
    sizes = _level_sizes(traversal)
    levels = zip(
        traversal.weights,
        _messages_before(grad_messages_out, traversal),
        *_by_level(sizes, grad_messages_out, output_mask, grad_hidden, hidden_mask),
        *_by_level(sizes, grad_h, grad_h[:, None], d_gates, grad_gates, grad_gates.view(len(grad_gates), -1)),
        strict=True,
    )
    for weights, before, g_out, output_on, g_hidden, hidden_on, g, g3, d_gate, g_gate, g_flat in reversed(list(levels)):
        torch.mm(g_out.mul_(output_on), w.w2, out=g_hidden)
        g.addmm_(g_hidden.mul_(hidden_on), w.w1)
        torch.mul(g3, d_gate, out=g_gate)
        before.addmm_(weights.t(), torch.mm(g_flat, w.w_ih))


def _level_sizes(traversal: Traversal) -> list[int]:
    return [b - a for a, b in zip(traversal.bounds, traversal.bounds[1:], strict=False)]


def _by_level(sizes: list[int], *buffers: Tensor) -> list[tuple[Tensor, ...]]:
    """Each buffer [N, ...] as views of its levels."""
    return [torch.split(buffer, sizes) for buffer in buffers]


def _messages_before(messages_out: Tensor, traversal: Traversal) -> list[Tensor]:
    """Returns for each level the messages of the nodes before it, from the first that it receives: direct and virtual.

    [N, 2D] -> per level [2 * (nodes), D].
    """
    by_message = messages_out.view(2 * len(messages_out), -1)
    return [by_message[2 * a : 2 * b] for a, b in zip(traversal.starts, traversal.bounds, strict=False)]
