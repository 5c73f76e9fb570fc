"""What an architecture is: nodes in topological order, edges, and for every parameter the one node that owns it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["weight", "bias", "norm_weight", "norm_bias", "class_weight", "class_bias"]
Shape = tuple[int, ...]

_FAR = 1 << 14  # "no path yet": larger than any shortest path, and _FAR plus any path length still fits an int16


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the module: its dotted name, its shape, the node that owns it and the role it plays there."""

    name: str
    shape: Shape
    node: int
    role: Role


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    op: a name of `ghnq.graph.ops.OPS`.
    name: the module path for nodes that own parameters, otherwise the function (`max_pool2d`).
    shape: (out, in, height, width) as the hypernetwork embeds it: of the weight, of norms and biases (n, 1, 1, 1), of
        the pooling window (1, 1, k, k); None for the rest.
    output_shape: of the activation behind the node, without the batch dimension; () where unknown.
    """

    op: str
    name: str
    shape: tuple[int, int, int, int] | None = None
    output_shape: Shape = ()


@dataclass(frozen=True)
class ArchGraph:
    """An architecture without weights: an immutable value, equal and hashed by content.

    nodes: in topological order, node 0 is the input, the last node is the output.
    edges: (from, to) with from < to, sorted, unique.
    parameters: sorted by node, a weight before its bias.
    input_shape: of one image, without the batch dimension. num_outputs: size of the last dimension of the output.
    further_outputs: of several outputs, the nodes besides the last from which no edge leads on. Where one of them is
        computed from the first output, that one is the last node.
    unused: names of parameters that reach no output; nothing is predicted for them.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    parameters: tuple[Parameter, ...]
    input_shape: Shape
    num_outputs: int
    further_outputs: tuple[int, ...] = ()
    unused: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self.nodes)

    def validate(self) -> ArchGraph:
        """Returns the graph itself; raises `GraphError` naming the node, edge or parameter that is wrong."""
        from ghnq.graph.validate import validate

        validate(self)
        return self

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For every node the nodes with an edge to it, ascending."""
        lists: list[list[int]] = [[] for _ in self.nodes]
        for u, v in self.edges:
            lists[v].append(u)
        return tuple(map(tuple, lists))

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """For every node the nodes that it has an edge to, ascending."""
        lists: list[list[int]] = [[] for _ in self.nodes]
        for u, v in self.edges:
            lists[u].append(v)
        return tuple(map(tuple, lists))

    def distances(self) -> NDArray[np.int16]:
        """Shortest path lengths in edges, int16 [N, N]: `d[u, v]` from u to v, 0 without a path and for u = v.

        Exact, by dynamic programming in topological order; cached, read-only. `GraphError` above 16,383 nodes.
        """
        return self._distances

    @cached_property
    def _distances(self) -> NDArray[np.int16]:
        n = len(self.nodes)
        if n >= _FAR:
            from ghnq.errors import GraphError

            raise GraphError(f"distances() takes graphs of at most {_FAR - 1} nodes; this one has {n}")
        into = np.full(
            (n, n), _FAR, dtype=np.int16
        )  # into[v, u]: from u to v, so that one node's values are contiguous
        rows = list(into)
        for v, before in enumerate(self.predecessors):
            row = rows[v]
            if before:
                first = rows[before[0]]
                for u in before[1:]:
                    first = np.minimum(first, rows[u], out=row)
                np.add(first, 1, out=row)
            row[v] = 0
        into[into >= _FAR] = 0
        result = np.ascontiguousarray(into.T)
        result.flags.writeable = False
        return result

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """For every node the longest path from the input: nodes of equal level do not depend on each other."""
        levels: list[int] = []
        for before in self.predecessors:
            levels.append(1 + max((levels[u] for u in before), default=-1))
        return tuple(levels)

    @cached_property
    def heights(self) -> tuple[int, ...]:
        """For every node the longest path to a node from which no edge leads on."""
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
        """Multiply-adds of all convolutions and linear layers for one image: fan-in times output elements.

        A strided transposed convolution is counted as if dense over its output, which is an upper bound.
        """
        return sum(
            prod(node.output_shape) * prod(node.shape[1:])
            for node in self.nodes
            if node.shape is not None and node.op in ("conv", "sep_conv", "dil_conv")
        )

    def to_json(self) -> str:
        """One line of JSON from which `from_json` makes an equal graph."""
        from ghnq.graph.serialization import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> ArchGraph:
        """The graph written by `to_json`, validated; raises `GraphError` for anything else."""
        from ghnq.graph.serialization import from_json

        return from_json(text)

    def to_networkx(self) -> Any:
        """A `networkx.DiGraph` with node attributes op, name, shape, output_shape and parameters (names)."""
        from ghnq.graph.serialization import to_networkx

        return to_networkx(self)
