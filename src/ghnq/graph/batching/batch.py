"""Several graphs as one batch: all nodes, traversals by topological level, parameters grouped by role and shape.

Dimensions: M graphs, N nodes of all graphs, S parameters ("slots") of a group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from ghnq.errors import GraphError
from ghnq.graph.batching.traversal import Traversal, build_traversal
from ghnq.graph.batching.virtual_edges import NodePairs, pairs_within
from ghnq.graph.ir import ArchGraph, Node, Parameter, Role, Shape
from ghnq.graph.ops import OPS

CPU = torch.device("cpu")
MAX_DISTANCE = 50
"""Virtual edges longer than this many hops are left out (GHN-2, section 4)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one predicted tensor.

    Attributes:
        graph: The index of the graph in the batch.
        name: The name of the parameter.
        node: The node that owns it, counted over the batch.
    """

    graph: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """All parameters of the batch with the same role, op and shape; a decoder predicts them together.

    Attributes:
        nodes: Long [S], the node that owns each.
        transposed: Whether they are stored in-channels first (`x @ W`, transposed convolutions), unlike the shape of
            their node.
    """

    role: Role
    op: str
    shape: Shape
    slots: tuple[Slot, ...]
    nodes: Tensor
    transposed: bool = False


@dataclass(frozen=True)
class GraphBatch:
    """M graphs side by side, as a hypernetwork takes them; what only some encoders need is computed on first use.

    Attributes:
        op: Long [N], index into the op vocabulary.
        shape: Long [N, 4], (out, in, height, width) of the node's weight, bias or pooling window; 0 if it has none.
        groups: Every parameter of every graph, exactly once.
        max_distance: The length in hops of the longest virtual edge.
        device: Of the tensors; those of the traversals stay on the CPU.
    """

    graphs: tuple[ArchGraph, ...]
    op: Tensor
    shape: Tensor
    groups: tuple[SlotGroup, ...]
    max_distance: int
    device: torch.device = CPU

    @classmethod
    def from_graphs(cls, graphs: Sequence[ArchGraph], *, max_distance: int = MAX_DISTANCE) -> GraphBatch:
        """Puts graphs side by side.

        Raises:
            GraphError: There is no graph.
        """
        if not graphs:
            raise GraphError("a batch needs at least one graph, got none")
        nodes = [node for g in graphs for node in g.nodes]
        return cls(
            graphs=tuple(graphs),
            op=torch.tensor([OPS[n.op].index for n in nodes]),
            shape=torch.tensor([n.shape or (0, 0, 0, 0) for n in nodes]),
            groups=_slot_groups(graphs),
            max_distance=max_distance,
        )

    def to(self, device: torch.device) -> GraphBatch:
        """Returns the same batch with its tensors on a device."""
        if device == self.device:
            return self
        groups = tuple(replace(group, nodes=group.nodes.to(device)) for group in self.groups)
        return replace(self, op=self.op.to(device), shape=self.shape.to(device), groups=groups, device=device)

    @property
    def size(self) -> int:
        """The number of graphs, M."""
        return len(self.graphs)

    @cached_property
    def node_pairs(self) -> tuple[NodePairs, ...]:
        """For each graph the pairs of nodes with a direct or virtual edge."""
        return tuple(pairs_within(graph, max(1, self.max_distance)) for graph in self.graphs)

    @cached_property
    def forward(self) -> Traversal:
        """The traversal along the edges."""
        return build_traversal(self.graphs, self._all_pairs, self.max_distance, backward=False)

    @cached_property
    def backward(self) -> Traversal:
        """The traversal against the edges."""
        return build_traversal(self.graphs, self._all_pairs, self.max_distance, backward=True)

    @cached_property
    def _all_pairs(self) -> NodePairs:
        """The pairs of all graphs, with nodes counted over the batch."""
        offsets = _offsets(self.graphs)
        source = np.concatenate([pairs.source + offset for pairs, offset in zip(self.node_pairs, offsets, strict=True)])
        target = np.concatenate([pairs.target + offset for pairs, offset in zip(self.node_pairs, offsets, strict=True)])
        return NodePairs(source, target, np.concatenate([pairs.hops for pairs in self.node_pairs]))


def _offsets(graphs: Sequence[ArchGraph]) -> list[int]:
    """Returns the index of the first node of each graph, counted over the batch."""
    return list(accumulate((len(g.nodes) for g in graphs[:-1]), initial=0))


def _slot_groups(graphs: Sequence[ArchGraph]) -> tuple[SlotGroup, ...]:
    groups: dict[tuple[Role, str, Shape, bool], list[Slot]] = defaultdict(list)
    for number, (graph, offset) in enumerate(zip(graphs, _offsets(graphs), strict=True)):
        for p in graph.parameters:
            node = graph.nodes[p.node]
            key = (p.role, node.op, p.shape, _is_transposed(p, node))
            groups[key].append(Slot(number, p.name, p.node + offset))
    return tuple(
        SlotGroup(role, op, shape, tuple(slots), torch.tensor([s.node for s in slots]), transposed)
        for (role, op, shape, transposed), slots in groups.items()
    )


def _is_transposed(parameter: Parameter, node: Node) -> bool:
    """Returns whether a weight is stored as (in, out, ...) and its node has the shape (out, in, ...)."""
    if parameter.role not in ("weight", "class_weight") or len(parameter.shape) < 2 or node.shape is None:
        return False
    out, in_ = node.shape[:2]
    return out != in_ and parameter.shape[:2] == (in_, out)
