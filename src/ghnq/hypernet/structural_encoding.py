"""The structural encoding of a node: its depth in the graph, its resolution, and its degrees.

Message passing alone hardly distinguishes equal layers at different depths before it has learned to. GHN-3 (arXiv
2303.04143, section 3.2) gives nodes their degrees; depth and resolution are ours.

Dimensions: N nodes, D hidden, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ghnq.graph.ir import ArchGraph

_COSINES = 4
FEATURES = _COSINES + 6


class StructuralEncoding(nn.Sequential):
    """Structural features [N, F] -> [N, D], about as large as the embeddings of op and shape."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__(nn.Linear(FEATURES, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))
        for layer in (self[0], self[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight)


def structural_features(graphs: Sequence[ArchGraph]) -> Tensor:
    """Returns features [N, F] of the nodes of all graphs, each roughly in [-1, 1].

    Cosines of the relative depth; logarithms of the longest paths from the input and to the output; how often the
    image has been halved; whether the output is an image; logarithms of in-degree and out-degree.
    """
    return torch.from_numpy(np.concatenate([_of_nodes(graph) for graph in graphs]).astype(np.float32))


def _of_nodes(graph: ArchGraph) -> NDArray[np.float64]:
    """Returns the features of one graph's nodes, [n, F]."""
    below, above = np.array(graph.levels, dtype=float), np.array(graph.heights, dtype=float)
    depth = np.pi * below / np.maximum(1, below + above)
    size = graph.input_shape[-1]
    image = np.array([len(node.output_shape) == 3 for node in graph.nodes])
    width = np.array([node.output_shape[-1] if len(node.output_shape) == 3 else size for node in graph.nodes])
    halvings = np.log2(np.maximum(1, size / width))
    before, after = (np.array([*map(len, ends)]) for ends in (graph.predecessors, graph.successors))
    return np.stack(
        [np.cos(depth * k) for k in range(1, _COSINES + 1)]
        + [np.log1p(below) / 2 - 1, np.log1p(above) / 2 - 1, halvings / 2 - 1, image]
        + [np.log2(np.maximum(1, before)), np.log2(np.maximum(1, after))],
        axis=1,
    )
