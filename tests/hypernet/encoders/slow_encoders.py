"""Encoders as the papers write them: one node or one pair of nodes at a time, gradients by autograd."""

import math

import torch
from torch import Tensor

from ghnq.graph.ir import ArchGraph
from ghnq.hypernet.encoders.gatedgnn import GatedGNN, MessageMLP
from ghnq.hypernet.encoders.graphormer import Graphormer


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


def graphormer(encoder: Graphormer, h: Tensor, graph: ArchGraph, *, max_distance: int) -> Tensor:
    """GHN-3, section 3: every pair of nodes has its own edge embedding, every head its own loop."""
    n, d = h.shape
    most = max_distance if encoder.virtual_edges else 1
    hops = [[int(s) if s <= most else 0 for s in row] for row in graph.distances().tolist()]
    ends = [u for u, _ in graph.edges], [v for _, v in graph.edges]
    x = torch.stack(
        [
            h[v]
            + encoder.in_degree.weight[min(ends[1].count(v), 100)]
            + encoder.out_degree.weight[min(ends[0].count(v), 100)]
            + encoder.input_distance.weight[hops[0][v]]
            for v in range(n)
        ]
    )
    e = encoder.edges
    table = e.distance.weight
    bias = torch.stack(
        [
            torch.stack([e.outer(torch.relu(e.inner(torch.cat([table[hops[u][v] + 2], table[hops[v][u] + 2]]))))
                         for v in range(n)])
            for u in range(n)
        ]
    )  # fmt: skip
    for layer in encoder.layers:
        y = layer.attention_norm(x)
        q, k, v = (y @ layer.qkv.weight[i * d : (i + 1) * d].t() for i in range(3))
        width, heads = d // layer.heads, []
        for a in range(layer.heads):
            cut = slice(a * width, (a + 1) * width)
            logits = q[:, cut] @ k[:, cut].t() / math.sqrt(width) + bias[:, :, a]
            heads.append(logits.softmax(dim=1) @ v[:, cut])
        x = x + layer.out(torch.cat(heads, dim=1))
        x = x + layer.outer(torch.nn.functional.gelu(layer.inner(layer.mlp_norm(x))))
    return x
