"""One pass over many graphs side by side, level by level.

Dimensions: N nodes of all graphs, L levels, R pairs of nodes within reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ghnq.graph.batching.virtual_edges import Reach
from ghnq.graph.ir import ArchGraph


@dataclass(frozen=True, slots=True)
class Traversal:
    """One pass over all nodes, level by level; a level's nodes have no edges among themselves and are updated together.

    order: long [N], nodes sorted by level; `order[bounds[l]:bounds[l + 1]]` is level l.
    rank: long [N], the inverse permutation.
    starts: per level the place in `order` of the first node that it hears; bounds[l] where it hears none.
    weights: per level a float [n_l, 2 * (bounds[l] - starts[l])] matrix over the places from starts[l] to bounds[l].
        Column 2j weighs the direct message of the j-th of them (1 for a neighbour), column 2j + 1 its virtual message
        (1 / distance); 0 where there is no such edge.
    """

    order: Tensor
    rank: Tensor
    bounds: tuple[int, ...]
    starts: tuple[int, ...]
    weights: tuple[Tensor, ...]


def traversal(graphs: Sequence[ArchGraph], pairs: Reach, max_distance: int, *, backward: bool) -> Traversal:
    """The pass along the edges, or against them, of graphs side by side.

    pairs: whatever reaches what, with nodes counted over all graphs. Virtual edges are at most `max_distance` long.
    """
    level = np.concatenate([_levels(g, backward=backward) for g in graphs])
    order = np.argsort(level, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(level))])
    hearer, heard = (pairs.source, pairs.target) if backward else (pairs.target, pairs.source)
    starts = bounds[:-1].copy()
    np.minimum.at(starts, level[hearer], rank[heard])
    weights = _weights(level, rank, bounds, starts, (hearer, heard, pairs.hops), max_distance)
    return Traversal(
        torch.from_numpy(order), torch.from_numpy(rank), tuple(bounds.tolist()), tuple(starts.tolist()), weights
    )


def _levels(graph: ArchGraph, *, backward: bool) -> Sequence[int]:
    """Longest path, in edges, from the input to each node, or from each node to the end."""
    if not backward:
        return graph.levels
    level = [0] * len(graph.nodes)
    # Edges are sorted by their first node, so in reverse all that an edge leads to is final when its turn comes.
    for u, v in reversed(graph.edges):
        level[u] = max(level[u], level[v] + 1)
    return level


def _weights(
    level: NDArray[np.int64],
    rank: NDArray[np.int64],
    bounds: NDArray[np.int64],
    starts: NDArray[np.int64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    max_distance: int,
) -> tuple[Tensor, ...]:
    """All levels' matrices, cut from one buffer that is filled at once."""
    hearer, heard, hops = pairs
    widths, heights = 2 * (bounds[:-1] - starts), np.diff(bounds)
    ends = np.cumsum(widths * heights)
    at = level[hearer]
    place = (ends - widths * heights - bounds[:-1] * widths - 2 * starts)[at] + rank[hearer] * widths[at]
    place += 2 * rank[heard]
    buffer = np.zeros(ends[-1], dtype=np.float32)
    buffer[place[hops == 1]] = 1.0
    near = hops <= max_distance
    buffer[place[near] + 1] = 1.0 / hops[near]
    parts = torch.split(torch.from_numpy(buffer), (widths * heights).tolist())
    shapes = zip(heights.tolist(), widths.tolist(), strict=True)
    return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))
