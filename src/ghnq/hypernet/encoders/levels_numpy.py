"""The loops over topological levels in numpy, on the memory of the tensors: the same sums, a quarter of the dispatch.

A level is often a single node, and its operations are too small for their arithmetic to count: what counts is how long
a library takes to begin one. That is about 0.6 us in numpy and 4 us in torch. Dimensions and names: see `traverse`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ghnq.graph.batching.traversal import Traversal
from ghnq.hypernet.encoders.traversal_state import State, Weights

Array = NDArray[np.floating]


def forward(traversal: Traversal, s: State, w: Weights) -> None:
    """Fills `heard`, `gates`, `h`, `inner` and `said`, level by level."""
    d = s.h.shape[1]
    w1_t, w2_t = _transposed(w.w1), _transposed(w.w2)
    b1, b2 = w.b1.numpy(), w.b2.numpy()
    # sigmoid(x) = 1 / (1 + exp(-x)): the signs go into weights and addends, once, and where a gate multiplies, the
    # level divides.
    signs = np.ones(3 * d, dtype=b1.dtype)
    signs[: 2 * d] = -1.0
    w_ih_t = _transposed(w.w_ih) * signs
    addends = np.tile(w.b_ih.numpy(), (len(s.h), 1))
    addends[:, : 2 * d] += s.gates_h.numpy()[:, : 2 * d]
    addends *= signs
    new_h, h0 = s.gates_h.numpy()[:, 2 * d :], s.h0.numpy()
    heard, gates, h, inner, said = (x.numpy() for x in (s.heard, s.gates, s.h, s.inner, s.said))
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the 0 that it should be
        for weights, a, b, before in _levels(traversal, said):
            m, gate, state, hidden, saying = heard[a:b], gates[a:b], h[a:b], inner[a:b], said[a:b]
            both, new = gate[:, : 2 * d], gate[:, 2 * d :]
            np.dot(weights, before, out=m)
            np.dot(m, w_ih_t, out=gate)
            gate += addends[a:b]
            np.exp(both, out=both)
            both += 1.0
            new += new_h[a:b] / both[:, :d]
            np.tanh(new, out=new)
            np.subtract(h0[a:b], new, out=state)
            state /= both[:, d:]
            state += new
            np.dot(state, w1_t, out=hidden)
            hidden += b1
            np.maximum(hidden, 0.0, out=hidden)
            np.dot(hidden, w2_t, out=saying)
            saying += b2
            np.maximum(saying, 0.0, out=saying)
    np.reciprocal(gates[:, : 2 * d], out=gates[:, : 2 * d])


def backward(
    traversal: Traversal, w: Weights, *, grad_h: Tensor, grad_said: Tensor, grad_inner: Tensor, spoke: Tensor,
    fired: Tensor, d_gates: Tensor, grad_gates: Tensor,
) -> None:  # fmt: skip
    """Fills `grad_said`, `grad_inner` and `grad_gates`, and completes `grad_h`, from the last level to the first."""
    w1, w2, w_ih = w.w1.numpy(), w.w2.numpy(), w.w_ih.numpy()
    spoken, firing, d_gate = spoke.numpy(), fired.numpy(), d_gates.numpy()
    h, said, inner, gates = grad_h.numpy(), grad_said.numpy(), grad_inner.numpy(), grad_gates.numpy()
    flat = gates.reshape(len(gates), -1)
    for weights, a, b, before in reversed(list(_levels(traversal, said))):
        g_said, g_inner, g = said[a:b], inner[a:b], h[a:b]
        g_said *= spoken[a:b]
        np.dot(g_said, w2, out=g_inner)
        g_inner *= firing[a:b]
        g += np.dot(g_inner, w1)
        np.multiply(g[:, None], d_gate[a:b], out=gates[a:b])
        before += np.dot(weights.T, np.dot(flat[a:b], w_ih))


def _transposed(weight: Tensor) -> Array:
    return np.ascontiguousarray(weight.numpy().T)


def _levels(traversal: Traversal, said: Array) -> Iterator[tuple[Array, int, int, Array]]:
    """For each level its weights, where it begins and ends, and the messages [2 * nodes, D] that it weighs."""
    by_message = said.reshape(2 * len(said), -1)
    bounds = traversal.bounds
    for weights, start, a, b in zip(traversal.weights, traversal.starts, bounds, bounds[1:], strict=False):
        yield weights.numpy(), a, b, by_message[2 * start : 2 * a]
