"""Many graphs as one: all nodes, the traversals by topological level, and the parameters grouped by decoder shape.

Dimensions: M graphs, N nodes of all graphs together, S parameters ("slots") of all graphs together.
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
from ghnq.graph.batching.traversal import Traversal, traversal
from ghnq.graph.batching.virtual_edges import Reach, reach
from ghnq.graph.ir import ArchGraph, Node, Parameter, Role, Shape
from ghnq.graph.ops import OPS

CPU = torch.device("cpu")
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


@dataclass(frozen=True)
class GraphBatch:
    """M graphs side by side, ready for a hypernetwork; what only some encoders need is made when it is first asked for.

    op: long [N], index into the op vocabulary.
    shape: long [N, 4], (out, in, height, width) of the node's weight, bias or pooling window; 0 where there is none.
    groups: every parameter of every graph, exactly once.
    max_distance: the longest virtual edge, in hops.
    device: where the tensors are, but for the traversals, which are made and walked on the CPU.
    """

    graphs: tuple[ArchGraph, ...]
    op: Tensor
    shape: Tensor
    groups: tuple[SlotGroup, ...]
    max_distance: int
    device: torch.device = CPU

    @classmethod
    def from_graphs(cls, graphs: Sequence[ArchGraph], *, max_distance: int = MAX_DISTANCE) -> GraphBatch:
        """Puts graphs side by side; raises GraphError for an empty sequence."""
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
        """The same batch with its tensors on a device."""
        if device == self.device:
            return self
        groups = tuple(replace(group, nodes=group.nodes.to(device)) for group in self.groups)
        return replace(self, op=self.op.to(device), shape=self.shape.to(device), groups=groups, device=device)

    @property
    def size(self) -> int:
        """The number of graphs, M."""
        return len(self.graphs)

    @cached_property
    def reach(self) -> tuple[Reach, ...]:
        """Per graph the pairs of nodes with a direct or virtual edge."""
        return tuple(reach(g, max(1, self.max_distance)) for g in self.graphs)

    @cached_property
    def forward(self) -> Traversal:
        """The traversal along the edges."""
        return traversal(self.graphs, self._pairs, self.max_distance, backward=False)

    @cached_property
    def backward(self) -> Traversal:
        """The traversal against the edges."""
        return traversal(self.graphs, self._pairs, self.max_distance, backward=True)

    @cached_property
    def _pairs(self) -> Reach:
        """The pairs of all graphs, nodes counted over the whole batch."""
        offsets = _offsets(self.graphs)
        source = np.concatenate([r.source + offset for r, offset in zip(self.reach, offsets, strict=True)])
        target = np.concatenate([r.target + offset for r, offset in zip(self.reach, offsets, strict=True)])
        return Reach(source, target, np.concatenate([r.hops for r in self.reach]))


def _offsets(graphs: Sequence[ArchGraph]) -> list[int]:
    """The number of each graph's first node, counted over all graphs."""
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
    """Whether a weight is stored (in, out, ...) where its node says (out, in, ...)."""
    if parameter.role not in ("weight", "class_weight") or len(parameter.shape) < 2 or node.shape is None:
        return False
    out, in_ = node.shape[:2]
    return out != in_ and parameter.shape[:2] == (in_, out)
