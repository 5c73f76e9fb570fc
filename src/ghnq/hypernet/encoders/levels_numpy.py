"""The loops over topological levels in numpy, on the memory of the tensors: the same sums, a quarter of the overhead.

A level is often a single node, and its operations are too small for their arithmetic to count: what counts is the
overhead of a call, which is about 0.6 us in numpy and 4 us in torch. Dimensions and names: see `traverse`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ghnq.graph.batching.traversal import Traversal
from ghnq.hypernet.encoders.traversal_state import TraversalState, TraversalWeights

Array = NDArray[np.floating]


def forward(traversal: Traversal, state: TraversalState, w: TraversalWeights) -> None:
    """Fills `messages_in`, `gates`, `h`, `hidden` and `messages_out`, level by level."""
    d = state.h.shape[1]
    w1_t, w2_t = _transposed(w.w1), _transposed(w.w2)
    b1, b2 = w.b1.numpy(), w.b2.numpy()
    # sigmoid(x) = 1 / (1 + exp(-x)): the signs are in weights and addends, and where a gate multiplies, the level
    # divides.
    signs = np.ones(3 * d, dtype=b1.dtype)
    signs[: 2 * d] = -1.0
    w_ih_t = _transposed(w.w_ih) * signs
    addends = np.tile(w.b_ih.numpy(), (len(state.h), 1))
    addends[:, : 2 * d] += state.gates_h.numpy()[:, : 2 * d]
    addends *= signs
    new_h, h0 = state.gates_h.numpy()[:, 2 * d :], state.h0.numpy()
    messages_in, gates, h, hidden, messages_out = (x.numpy() for x in state[2:])
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is 0, as it should be
        for weights, a, b, before in _levels(traversal, messages_out):
            m, gate, h_level, hidden_level = messages_in[a:b], gates[a:b], h[a:b], hidden[a:b]
            out = messages_out[a:b]
            both, new = gate[:, : 2 * d], gate[:, 2 * d :]
            np.dot(weights, before, out=m)
            np.dot(m, w_ih_t, out=gate)
            gate += addends[a:b]
            np.exp(both, out=both)
            both += 1.0
            new += new_h[a:b] / both[:, :d]
            np.tanh(new, out=new)
            np.subtract(h0[a:b], new, out=h_level)
            h_level /= both[:, d:]
            h_level += new
            np.dot(h_level, w1_t, out=hidden_level)
            hidden_level += b1
            np.maximum(hidden_level, 0.0, out=hidden_level)
            np.dot(hidden_level, w2_t, out=out)
            out += b2
            np.maximum(out, 0.0, out=out)
    np.reciprocal(gates[:, : 2 * d], out=gates[:, : 2 * d])


def backward(
    traversal: Traversal, w: TraversalWeights, *, grad_h: Tensor, grad_messages_out: Tensor, grad_hidden: Tensor,
    output_mask: Tensor, hidden_mask: Tensor, d_gates: Tensor, grad_gates: Tensor,
) -> None:  # fmt: skip
    """Fills `grad_messages_out`, `grad_hidden` and `grad_gates`, and completes `grad_h`, from the last level on."""
    w1, w2, w_ih = w.w1.numpy(), w.w2.numpy(), w.w_ih.numpy()
    output_on, hidden_on, d_gate = output_mask.numpy(), hidden_mask.numpy(), d_gates.numpy()
    h, messages_out, hidden, gates = (x.numpy() for x in (grad_h, grad_messages_out, grad_hidden, grad_gates))
    flat = gates.reshape(len(gates), -1)
    for weights, a, b, before in reversed(list(_levels(traversal, messages_out))):
        g_out, g_hidden, g = messages_out[a:b], hidden[a:b], h[a:b]
        g_out *= output_on[a:b]
        np.dot(g_out, w2, out=g_hidden)
        g_hidden *= hidden_on[a:b]
        g += np.dot(g_hidden, w1)
        np.multiply(g[:, None], d_gate[a:b], out=gates[a:b])
        before += np.dot(weights.T, np.dot(flat[a:b], w_ih))


def _transposed(weight: Tensor) -> Array:
    return np.ascontiguousarray(weight.numpy().T)


def _levels(traversal: Traversal, messages_out: Array) -> Iterator[tuple[Array, int, int, Array]]:
    """Yields the weights of each level, its first node, the next level's, and the messages [2 * nodes, D] to weigh."""
    by_message = messages_out.reshape(2 * len(messages_out), -1)
    bounds = traversal.bounds
    for weights, start, a, b in zip(traversal.weights, traversal.starts, bounds, bounds[1:], strict=False):
        yield weights.numpy(), a, b, by_message[2 * start : 2 * a]
