"""The gated graph network of GHN-1 (arXiv 1810.05749, Eq. 3) with the virtual edges of GHN-2 (arXiv 2110.13100, Eq. 4).

One traversal along the edges, one against them; in each, for every node v in topological order,

    m_v = sum over neighbours u of MLP(h_u) + sum over all u that reach v of MLP_sp(h_u) / s_uv,    h_v = GRU(h_v, m_v).

Each message is computed once per node, right after its update, and all nodes of a topological level, over all graphs
of the meta-batch, are updated together. Both are exact.

Dimensions: N nodes, D hidden, L levels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghnq.graph.batching.batch import GraphBatch
from ghnq.hypernet.encoders.traverse import GateWeights, MessageWeights, traverse


class MessageMLP(nn.Module):
    """Linear, ReLU, linear, ReLU: node embedding -> message."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, inner)
        self.outer = nn.Linear(inner, hidden)


class GatedGNN(nn.Module):
    """An `Encoder`: one traversal along the edges and one against them."""

    def __init__(self, *, hidden: int, virtual_edges: bool = True) -> None:
        super().__init__()
        inner = hidden // 2 if virtual_edges else hidden
        self.direct = MessageMLP(hidden, inner)
        self.virtual = MessageMLP(hidden, inner) if virtual_edges else None
        self.gru = nn.GRUCell(hidden, hidden)

    def messages(self) -> MessageWeights:
        """Returns both message MLPs as one: first layers stacked, second layers side by side."""
        if self.virtual is None:
            # With a virtual message of zero both kinds of graph network are computed alike.
            outer, zeros = self.direct.outer, torch.zeros_like(self.direct.outer.weight)
            return MessageWeights(
                self.direct.inner.weight,
                self.direct.inner.bias,
                torch.cat([outer.weight, zeros]),
                torch.cat([outer.bias, torch.zeros_like(outer.bias)]),
            )
        pair = (self.direct, self.virtual)
        return MessageWeights(
            torch.cat([m.inner.weight for m in pair]),
            torch.cat([m.inner.bias for m in pair]),
            torch.block_diag(*[m.outer.weight for m in pair]),  # type: ignore[no-untyped-call]
            torch.cat([m.outer.bias for m in pair]),
        )

    def forward(self, h_ND: Tensor, batch: GraphBatch) -> Tensor:
        """[N, D] -> [N, D]; see `Encoder`."""
        device, gru = h_ND.device, self.gru
        h = h_ND.cpu()  # on any device: see traverse.py
        messages = MessageWeights(*(t.cpu() for t in self.messages()))
        gates = GateWeights(*(t.cpu() for t in (gru.weight_ih, gru.weight_hh, gru.bias_ih, gru.bias_hh)))
        for traversal in (batch.forward, batch.backward):
            h = traverse(h, traversal, messages, gates)
        return h.to(device)
