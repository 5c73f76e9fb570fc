"""GHN-2's node update as the papers write it: one node at a time, one message per edge, gradients by autograd."""

import torch
from torch import Tensor

from ghnq.graph.ir import ArchGraph
from ghnq.hypernet.encoders.gatedgnn import GatedGNN, MessageMLP


def message(mlp: MessageMLP, h: Tensor) -> Tensor:
    return torch.relu(mlp.outer(torch.relu(mlp.inner(h))))


def gated_gnn(gnn: GatedGNN, h: Tensor, graph: ArchGraph, *, max_distance: int) -> Tensor:
    """GHN-1, Eq. 3 and GHN-2, Eq. 4: once forward, once backward."""
    distance = graph.distances().tolist()
    n = len(graph.nodes)
    state = list(h.unbind(0))
    for nodes, hops in (
        (range(n), lambda v, u: distance[u][v]),
        (range(n - 1, -1, -1), lambda v, u: distance[v][u]),
    ):
        for v in nodes:
            m = torch.zeros_like(state[v])
            for u in range(n):
                s = hops(v, u)
                if s == 1:
                    m = m + message(gnn.direct, state[u])
                if 1 <= s <= max_distance and gnn.virtual is not None:
                    m = m + message(gnn.virtual, state[u]) / s
            state[v] = gnn.gru(m[None], state[v][None])[0]
    return torch.stack(state)
