"""Many graphs as one: all nodes, the traversals by topological level, and the parameters grouped by decoder shape.

Dimensions: M graphs, N nodes of all graphs together, L levels, S parameters ("slots") of all graphs together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ghnq.errors import GraphError
from ghnq.graph.ir import ArchGraph, Node, Parameter, Role, Shape
from ghnq.graph.ops import OPS

MAX_DISTANCE = 50
"""Virtual edges longer than this many hops are left out (GHN-2, section 4)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one predicted tensor goes: graph number, parameter name, owning node (counted over the whole batch)."""

    graph: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """All parameters of the batch that have the same role and shape; a decoder predicts them in one go.

    transposed: they are stored in-channels first (`x @ W`, transposed convolutions), against the shape of their node.
    """

    role: Role
    op: str
    shape: Shape
    slots: tuple[Slot, ...]
    nodes: Tensor
    """Long [S]: the owning node of each slot."""
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Traversal:
    """One pass over all nodes, level by level; a level's nodes have no edges among themselves and are updated together.

    order: long [N], nodes sorted by level; `order[bounds[l]:bounds[l + 1]]` is level l.
    rank: long [N], the inverse permutation.
    weights: per level a float [n_l, 2 * bounds[l]] matrix. Column 2j weighs the direct message of the j-th node in
        `order` (1 for a neighbour), column 2j + 1 its virtual message (1 / distance); 0 where there is no such edge.
    """

    order: Tensor
    rank: Tensor
    bounds: tuple[int, ...]
    weights: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class GraphBatch:
    """M graphs side by side, ready for a hypernetwork.

    op: long [N], index into the op vocabulary.
    shape: long [N, 4], (out, in, height, width) of the node's weight, bias or pooling window; 0 where there is none.
    forward, backward: the traversals along and against the edges.
    groups: every parameter of every graph, exactly once.
    """

    size: int
    op: Tensor
    shape: Tensor
    forward: Traversal
    backward: Traversal
    groups: tuple[SlotGroup, ...]

    @classmethod
    def from_graphs(cls, graphs: Sequence[ArchGraph], *, max_distance: int = MAX_DISTANCE) -> GraphBatch:
        """Puts graphs side by side; raises GraphError for an empty sequence."""
        if not graphs:
            raise GraphError("a batch needs at least one graph, got none")
        offsets = np.cumsum([0] + [len(g.nodes) for g in graphs])
        nodes = [node for g in graphs for node in g.nodes]
        return cls(
            size=len(graphs),
            op=torch.tensor([OPS[n.op].index for n in nodes]),
            shape=torch.tensor([n.shape or (0, 0, 0, 0) for n in nodes]),
            forward=_traversal(graphs, offsets, max_distance, backward=False),
            backward=_traversal(graphs, offsets, max_distance, backward=True),
            groups=_slot_groups(graphs, offsets),
        )


def _levels(graph: ArchGraph, *, backward: bool) -> list[int]:
    """Longest path, in edges, from the input to each node, or from each node to the end."""
    level = [0] * len(graph.nodes)
    # Edges are sorted by their first node, so whatever an edge leads on from is final when its turn comes.
    if backward:
        for u, v in reversed(graph.edges):
            level[u] = max(level[u], level[v] + 1)
    else:
        for u, v in graph.edges:
            level[v] = max(level[v], level[u] + 1)
    return level


def _traversal(
    graphs: Sequence[ArchGraph], offsets: npt.NDArray[np.int64], max_distance: int, *, backward: bool
) -> Traversal:
    total = int(offsets[-1])
    level = np.concatenate([_levels(g, backward=backward) for g in graphs])
    order = np.argsort(level, kind="stable")
    rank = np.empty(total, dtype=np.int64)
    rank[order] = np.arange(total)
    weight = np.zeros((total, total, 2), dtype=np.float32)
    for graph, offset in zip(graphs, offsets[:-1], strict=True):
        distance = graph.distances()
        heard = distance if backward else distance.T  # [v, u]: node v hears node u over so many hops
        v, u = np.nonzero(heard)
        hops = heard[v, u]
        v, u = rank[v + offset], rank[u + offset]
        direct, near = hops == 1, hops <= max_distance
        weight[v[direct], u[direct], 0] = 1.0
        weight[v[near], u[near], 1] = 1.0 / hops[near]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(level))])
    weights = tuple(
        torch.from_numpy(np.ascontiguousarray(weight[a:b, :a]).reshape(b - a, 2 * a))
        for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    )
    return Traversal(torch.from_numpy(order), torch.from_numpy(rank), tuple(bounds.tolist()), weights)


def _slot_groups(graphs: Sequence[ArchGraph], offsets: npt.NDArray[np.int64]) -> tuple[SlotGroup, ...]:
    groups: dict[tuple[Role, str, Shape, bool], list[Slot]] = defaultdict(list)
    for number, (graph, offset) in enumerate(zip(graphs, offsets.tolist(), strict=False)):
        for p in graph.parameters:
            node = graph.nodes[p.node]
            key = (p.role, node.op, p.shape, _is_transposed(p, node))
            groups[key].append(Slot(number, p.name, p.node + offset))
    return tuple(
        SlotGroup(role, op, shape, tuple(slots), torch.tensor([s.node for s in slots]), transposed)
        for (role, op, shape, transposed), slots in groups.items()
    )


def _is_transposed(parameter: Parameter, node: Node) -> bool:
    """Whether a weight is stored (in, out, ...) where its node says (out, in, ...)."""
    if parameter.role not in ("weight", "class_weight") or len(parameter.shape) < 2 or node.shape is None:
        return False
    out, in_ = node.shape[:2]
    return out != in_ and parameter.shape[:2] == (in_, out)
