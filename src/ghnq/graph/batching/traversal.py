"""One pass over several graphs side by side, level by level.

Dimensions: N nodes of all graphs, L levels, n_l nodes of level l, R pairs of nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ghnq.graph.batching.virtual_edges import NodePairs
from ghnq.graph.ir import ArchGraph


@dataclass(frozen=True, slots=True)
class Traversal:
    """One pass over all nodes, level by level. The nodes of a level are independent, and are updated together.

    Attributes:
        order: Long [N], the nodes sorted by level; `order[bounds[l]:bounds[l + 1]]` is level l.
        rank: Long [N], the inverse permutation.
        bounds: The first position in `order` of each level, and N.
        starts: For each level the first position in `order` from which it receives a message; bounds[l] if none.
        weights: For each level a float matrix [n_l, 2 * (bounds[l] - starts[l])] over the positions from starts[l] to
            bounds[l]. Column 2j is the weight of the direct message of the j-th of them (1 for a neighbour), column
            2j + 1 that of its virtual message (1 / distance); 0 if there is no such edge.
    """

    order: Tensor
    rank: Tensor
    bounds: tuple[int, ...]
    starts: tuple[int, ...]
    weights: tuple[Tensor, ...]


def build_traversal(graphs: Sequence[ArchGraph], pairs: NodePairs, max_distance: int, *, backward: bool) -> Traversal:
    """Returns the pass along the edges of graphs side by side, or against them.

    Args:
        pairs: All pairs of nodes joined by a path, with nodes counted over all graphs.
        max_distance: The length in hops of the longest virtual edge.
        backward: Whether messages go against the edges.
    """
    level = np.concatenate([graph.heights if backward else graph.levels for graph in graphs])
    order = np.argsort(level, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(level))])
    receiver, sender = (pairs.source, pairs.target) if backward else (pairs.target, pairs.source)
    starts = bounds[:-1].copy()
    np.minimum.at(starts, level[receiver], rank[sender])
    weights = _weights(level, rank, bounds, starts, (receiver, sender, pairs.hops), max_distance)
    return Traversal(
        torch.from_numpy(order), torch.from_numpy(rank), tuple(bounds.tolist()), tuple(starts.tolist()), weights
    )


def _weights(
    level: NDArray[np.int64],
    rank: NDArray[np.int64],
    bounds: NDArray[np.int64],
    starts: NDArray[np.int64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    max_distance: int,
) -> tuple[Tensor, ...]:
    """Returns the matrices of all levels, as views of one buffer that is filled at once.

    Args:
        pairs: Receivers, senders and distances, [R] each.
    """
    receiver, sender, hops = pairs
    widths, heights = 2 * (bounds[:-1] - starts), np.diff(bounds)
    ends = np.cumsum(widths * heights)
    row_level = level[receiver]
    offsets = ends - widths * heights - bounds[:-1] * widths - 2 * starts
    positions = offsets[row_level] + rank[receiver] * widths[row_level] + 2 * rank[sender]
    buffer = np.zeros(ends[-1], dtype=np.float32)
    buffer[positions[hops == 1]] = 1.0
    near = hops <= max_distance
    buffer[positions[near] + 1] = 1.0 / hops[near]
    parts = torch.split(torch.from_numpy(buffer), (widths * heights).tolist())
    shapes = zip(heights.tolist(), widths.tolist(), strict=True)
    return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))
