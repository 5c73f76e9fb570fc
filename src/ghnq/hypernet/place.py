"""Where a node lies: how deep in its graph, at which resolution, and how many nodes it hears and tells.

Message passing alone hardly tells equal layers at different depths apart before it has learned to. GHN-3 (arXiv
2303.04143, section 3.2) gives nodes their degrees; depth and resolution are ours.

Dimensions: N nodes, D hidden, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghnq.graph.ir import ArchGraph, Node

_WAVES = 4
FEATURES = _WAVES + 6


class PlaceEmbedding(nn.Sequential):
    """[N, F] -> [N, D], about as large as the embeddings of op and shape."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__(nn.Linear(FEATURES, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))
        for layer in (self[0], self[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight)


def place_features(graphs: Sequence[ArchGraph]) -> Tensor:
    """Features [N, F] of the nodes of all graphs, each about within -1 and 1.

    Cosine waves of the relative depth; logarithms of the longest paths from the input and to the output; how often the
    image has been halved; whether there is an image at all; edges in and out.
    """
    return torch.tensor([row for graph in graphs for row in _rows(graph)])


def _rows(graph: ArchGraph) -> list[list[float]]:
    size = graph.input_shape[-1]
    return [
        [math.cos(math.pi * wave * below / max(1, below + above)) for wave in range(1, _WAVES + 1)]
        + [math.log1p(below) / 2 - 1, math.log1p(above) / 2 - 1]
        + _resolution(node, size)
        + [math.log2(max(1, len(before))), math.log2(max(1, len(after)))]
        for node, below, above, before, after in zip(
            graph.nodes, graph.levels, graph.heights, graph.predecessors, graph.successors, strict=True
        )
    ]


def _resolution(node: Node, size: int) -> list[float]:
    image = len(node.output_shape) == 3
    halvings = math.log2(max(1.0, size / node.output_shape[-1])) if image else 0.0
    return [halvings / 2 - 1, float(image)]
