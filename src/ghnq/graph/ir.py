"""What an architecture is: nodes in topological order, edges, and for every parameter the one node that owns it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ghnq.errors import GraphError
from ghnq.graph import networkx_converter, serialization
from ghnq.graph.elements import GraphData
from ghnq.graph.elements import Node as Node
from ghnq.graph.elements import Parameter as Parameter
from ghnq.graph.elements import Role as Role
from ghnq.graph.elements import Shape as Shape
from ghnq.graph.elements import Shape4 as Shape4
from ghnq.graph.invariants import validate
from ghnq.graph.multiply_adds import layer_multiply_adds
from ghnq.graph.ops import KERNEL_OPS

if TYPE_CHECKING:
    from networkx import DiGraph

_NO_PATH = 1 << 14  # larger than any shortest path, and _NO_PATH plus any path length still fits an int16


@dataclass(frozen=True)
class ArchGraph(GraphData):
    """An architecture without weights: an immutable value, equal and hashed by content. For the fields see `GraphData`.

    Dimensions: N nodes.
    """

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self.nodes)

    def validate(self) -> ArchGraph:
        """Returns the graph itself.

        Raises:
            GraphError: The graph is not valid; the message names the node, edge or parameter that is wrong.
        """
        validate(self)
        return self

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For each node the nodes with an edge to it, ascending."""
        lists: list[list[int]] = [[] for _ in self.nodes]
        for u, v in self.edges:
            lists[v].append(u)
        return tuple(map(tuple, lists))

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """For each node the nodes that it has an edge to, ascending."""
        lists: list[list[int]] = [[] for _ in self.nodes]
        for u, v in self.edges:
            lists[u].append(v)
        return tuple(map(tuple, lists))

    def distances(self) -> NDArray[np.int16]:
        """Returns the lengths of the shortest paths in edges, int16 [N, N].

        `d[u, v]` is the length of the shortest path from u to v; 0 without a path and for u = v. Exact, by dynamic
        programming in topological order. The array is cached and read-only.

        Raises:
            GraphError: The graph has more than 16,383 nodes.
        """
        return self._distances

    @cached_property
    def _distances(self) -> NDArray[np.int16]:
        n = len(self.nodes)
        if n >= _NO_PATH:
            raise GraphError(f"distances() takes graphs of at most {_NO_PATH - 1} nodes; this one has {n}")
        # into[v, u] is the distance from u to v, so that the values of one node are contiguous.
        into = np.full((n, n), _NO_PATH, dtype=np.int16)
        rows = list(into)
        for v, before in enumerate(self.predecessors):
            row = rows[v]
            if before:
                first = rows[before[0]]
                for u in before[1:]:
                    first = np.minimum(first, rows[u], out=row)
                np.add(first, 1, out=row)
            row[v] = 0
        into[into >= _NO_PATH] = 0
        result = np.ascontiguousarray(into.T)
        result.flags.writeable = False
        return result

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """For each node the length of the longest path from the input; nodes of one level are independent."""
        levels: list[int] = []
        for before in self.predecessors:
            levels.append(1 + max((levels[u] for u in before), default=-1))
        return tuple(levels)

    @cached_property
    def heights(self) -> tuple[int, ...]:
        """For each node the length of the longest path to a node without successors."""
        heights = [0] * len(self.nodes)
        for u in reversed(range(len(self.nodes))):
            heights[u] = 1 + max((heights[v] for v in self.successors[u]), default=-1)
        return tuple(heights)

    @property
    def depth(self) -> int:
        """Length in edges of the longest path from the input to the output."""
        return max(self.levels)

    @cached_property
    def num_parameters(self) -> int:
        """Number of scalar parameters; a shared parameter counts once."""
        return sum(prod(p.shape) for p in self.parameters)

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of all convolutions and linear layers for one image."""
        return sum(
            layer_multiply_adds(node.shape, node.output_shape)
            for node in self.nodes
            if node.shape is not None and node.op in KERNEL_OPS
        )

    def to_json(self) -> str:
        """Returns one line of JSON, from which `from_json` makes an equal graph."""
        return serialization.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> ArchGraph:
        """Reads and validates the graph that `to_json` wrote.

        Raises:
            GraphError: The text is anything else.
        """
        return serialization.from_json(cls, text)

    def to_networkx(self) -> DiGraph:
        """Returns a `networkx.DiGraph` with node attributes op, name, shape, output_shape and parameters (names).

        Raises:
            MissingExtraError: networkx is not installed.
        """
        return networkx_converter.to_networkx(self)
