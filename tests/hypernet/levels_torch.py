"""The loops over topological levels in torch: the oracle of `levels_numpy`.

Levels are views made once per buffer: even slicing is dispatch. Dimensions and names: see `traverse`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ghnq.graph.batching.traversal import Traversal
from ghnq.hypernet.encoders.traversal_state import State, Weights


def forward(traversal: Traversal, s: State, w: Weights) -> None:
    """Fills `heard`, `gates`, `h`, `inner` and `said`, level by level."""
    d = s.h.shape[1]
    sizes = _level_sizes(traversal)
    w1_t, w2_t, w_ih_t = w.w1.t(), w.w2.t(), w.w_ih.t()
    levels = zip(
        traversal.weights,
        _said_before(s.said, traversal),
        *_by_level(sizes, s.heard, s.gates),
        *_by_level(sizes, *(s.gates[:, i * d : j * d] for i, j in ((0, 1), (1, 2), (0, 2), (2, 3)))),
        *_by_level(sizes, s.gates_h[:, : 2 * d], s.gates_h[:, 2 * d :], s.h0, s.h, s.inner, s.said),
        strict=True,
    )
    for weights, before, m, gate, reset, update, both, new, both_h, new_h, state0, state, hidden, saying in levels:
        torch.mm(weights, before, out=m)
        torch.addmm(w.b_ih, m, w_ih_t, out=gate)
        both.add_(both_h).sigmoid_()
        new.addcmul_(reset, new_h).tanh_()
        torch.lerp(new, state0, update, out=state)
        torch.addmm(w.b1, state, w1_t, out=hidden).relu_()
        torch.addmm(w.b2, hidden, w2_t, out=saying).relu_()


def backward(
    traversal: Traversal, w: Weights, *, grad_h: Tensor, grad_said: Tensor, grad_inner: Tensor, spoke: Tensor,
    fired: Tensor, d_gates: Tensor, grad_gates: Tensor,
) -> None:  # fmt: skip
    """Fills `grad_said`, `grad_inner` and `grad_gates`, and completes `grad_h`, from the last level to the first."""
    sizes = _level_sizes(traversal)
    levels = zip(
        traversal.weights,
        _said_before(grad_said, traversal),
        *_by_level(sizes, grad_said, spoke, grad_inner, fired),
        *_by_level(sizes, grad_h, grad_h[:, None], d_gates, grad_gates, grad_gates.view(len(grad_gates), -1)),
        strict=True,
    )
    for weights, before, g_said, spoken, g_inner, firing, g, g3, d_gate, g_gate, g_flat in reversed(list(levels)):
        torch.mm(g_said.mul_(spoken), w.w2, out=g_inner)
        g.addmm_(g_inner.mul_(firing), w.w1)
        torch.mul(g3, d_gate, out=g_gate)
        before.addmm_(weights.t(), torch.mm(g_flat, w.w_ih))


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
