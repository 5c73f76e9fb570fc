"""The size of an architecture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghnq.graph.ir import ArchGraph


@dataclass(frozen=True)
class Cost:
    """The size of a network and of its graph.

    Attributes:
        parameters: The number of trainable scalars.
        multiply_adds: Of convolutions and linear layers, for one image.
        depth: The number of convolutions and linear layers on the longest path from the image to the logits.
        width: The channels of the widest activation.
        ops: How often each op occurs among the nodes of the graph.
    """

    parameters: int
    multiply_adds: int
    depth: int
    width: int
    ops: Counter[str]

    @property
    def nodes(self) -> int:
        """The number of nodes of the graph."""
        return sum(self.ops.values())

    @classmethod
    def from_graph(cls, graph: ArchGraph) -> Cost:
        """Counts a traced graph."""
        from ghnq.graph.ops import KERNEL_OPS

        depths: list[int] = []
        for node, predecessors in zip(graph.nodes, graph.predecessors, strict=True):
            depths.append(max((depths[u] for u in predecessors), default=0) + (node.op in KERNEL_OPS))
        return cls(
            parameters=graph.num_parameters,
            multiply_adds=graph.multiply_adds,
            depth=max(depths),
            width=max(node.output_shape[0] for node in graph.nodes[1:] if node.output_shape),
            ops=Counter(node.op for node in graph.nodes),
        )
