"""The transformer over nodes of GHN-3 (arXiv 2303.04143, section 3): every node attends to every node of its graph.

    x = h + in-degree + out-degree + distance from the input,
    x = x + attention(LN(x)),  x = x + MLP(LN(x))  in every layer,
    attention = softmax(q k^T / sqrt(D / A) + e) v,  e_uv = MLP(E[d_uv + 2], E[d_vu + 2]),

with d the hops of the shortest path, 0 where there is none or it is too long, and e one number per head, the same in
all layers. In a directed graph without cycles d_uv or d_vu is 0, so there are few distinct e: they are computed once
each and looked up. All nodes of a batch share the linear layers; the attention is per graph, without padding.

Dimensions: N nodes of all graphs, n nodes of one graph, D hidden, A heads, R the longest distance.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.graph.batching.batch import GraphBatch
from ghnq.graph.batching.virtual_edges import NodePairs

EDGE_TABLE = 257
"""Rows of the distance embedding: row d + 2 for d hops, row 2 for no path."""
MAX_DEGREE, MAX_INPUT_DISTANCE = 100, 1000


class EdgeBias(nn.Module):
    """The bias of the attention for each signed distance -R..R and head, [A, 2R + 1]."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.distance = nn.Embedding(EDGE_TABLE, hidden)
        self.inner = nn.Linear(2 * hidden, hidden)
        self.outer = nn.Linear(hidden, heads)
        with torch.no_grad():
            self.distance.weight.copy_(_sinusoidal_encoding(EDGE_TABLE, hidden))

    def forward(self, longest: int) -> Tensor:
        """Returns the biases [A, 2R + 1] for R = longest."""
        signed = torch.arange(-longest, longest + 1, device=self.distance.weight.device)
        along, against = self.distance(signed.clamp(min=0) + 2), self.distance((-signed).clamp(min=0) + 2)
        return torch.as_tensor(self.outer(torch.relu(self.inner(torch.cat([along, against], dim=1)))).t())


class GraphormerLayer(nn.Module):
    """A pre-norm transformer layer: attention and MLP, each with a residual connection; [N, D] -> [N, D]."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden)
        self.mlp_norm = nn.LayerNorm(hidden)
        self.inner = nn.Linear(hidden, 4 * hidden)
        self.outer = nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor, biases: list[Tensor]) -> Tensor:
        """[N, D] -> [N, D].

        Args:
            biases: For each graph [A, n, n], added to its attention.
        """
        width = x.shape[1] // self.heads
        # [N, 3D] -> [3A, N, D / A]: queries, keys and values of all heads
        qkv = self.qkv(self.attention_norm(x)).view(len(x), 3 * self.heads, width).transpose(0, 1)
        attended = []
        for part, bias in zip(qkv.split([b.shape[1] for b in biases], dim=1), biases, strict=True):
            q, k, v = part.split(self.heads)
            weights = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=1 / math.sqrt(width)).softmax(dim=2)
            attended.append(torch.bmm(weights, v))
        x = x + self.out(torch.cat(attended, dim=1).transpose(0, 1).reshape(x.shape))
        return torch.as_tensor(x + self.outer(F.gelu(self.inner(self.mlp_norm(x)))))


class Graphormer(nn.Module):
    """An `Encoder`: the transformer over nodes of GHN-3."""

    def __init__(self, *, hidden: int, layers: int, heads: int, virtual_edges: bool = True) -> None:
        super().__init__()
        self.virtual_edges = virtual_edges
        self.in_degree = nn.Embedding(MAX_DEGREE + 1, hidden)
        self.out_degree = nn.Embedding(MAX_DEGREE + 1, hidden)
        self.input_distance = nn.Embedding(MAX_INPUT_DISTANCE + 1, hidden)
        for embedding in (self.in_degree, self.out_degree, self.input_distance):
            nn.init.trunc_normal_(embedding.weight, std=hidden**-0.5)
        self.edges = EdgeBias(hidden, heads)
        self.layers = nn.ModuleList(GraphormerLayer(hidden, heads) for _ in range(layers))

    def forward(self, h_ND: Tensor, batch: GraphBatch) -> Tensor:
        """[N, D] -> [N, D]; see `Encoder`."""
        longest = min(batch.max_distance, EDGE_TABLE - 3) if self.virtual_edges else 1
        sizes = [len(g.nodes) for g in batch.graphs]
        features = [_node_features(pairs, n, longest) for pairs, n in zip(batch.node_pairs, sizes, strict=True)]
        in_degree, out_degree, input_distance = (torch.cat(p).to(h_ND.device) for p in zip(*features, strict=True))
        x = h_ND + self.in_degree(in_degree) + self.out_degree(out_degree) + self.input_distance(input_distance)
        signed = torch.cat([_signed_hops(pairs, n, longest) for pairs, n in zip(batch.node_pairs, sizes, strict=True)])
        by_pair = self.edges(longest).index_select(1, signed.to(h_ND.device)).split([n * n for n in sizes], dim=1)
        biases = [bias.unflatten(1, (n, n)) for bias, n in zip(by_pair, sizes, strict=True)]
        for layer in self.layers:
            x = layer(x, biases)
        return torch.as_tensor(x)


def _node_features(pairs: NodePairs, n: int, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns in-degree, out-degree and distance from the input of every node, long [n] each; 0: unreachable."""
    direct = pairs.hops == 1
    degrees = [np.bincount(ends[direct], minlength=n).clip(max=MAX_DEGREE) for ends in (pairs.target, pairs.source)]
    distance = np.zeros(n, dtype=np.int64)
    from_input = (pairs.source == 0) & (pairs.hops <= longest)
    distance[pairs.target[from_input]] = pairs.hops[from_input].clip(max=MAX_INPUT_DISTANCE)
    return torch.from_numpy(degrees[0]), torch.from_numpy(degrees[1]), torch.from_numpy(distance)


def _signed_hops(pairs: NodePairs, n: int, longest: int) -> Tensor:
    """Returns for every pair of nodes R + d along the edges, R - d against them, R for no path; int32 [n * n]."""
    near = pairs.hops <= longest
    source, target, hops = (part[near] for part in pairs)
    signed = np.full(n * n, longest, dtype=np.int32)
    signed[source * n + target] += hops.astype(np.int32)
    signed[target * n + source] -= hops.astype(np.int32)
    return torch.from_numpy(signed)


def _sinusoidal_encoding(rows: int, width: int) -> Tensor:
    """Returns sines and cosines of falling frequency, [rows, width]; row 0 is zero (arXiv 1706.03762, section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(rows)[:, None] * rates
    encoding = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
    encoding[0] = 0
    return encoding
