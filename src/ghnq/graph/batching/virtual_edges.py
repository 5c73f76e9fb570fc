"""The virtual edges of GHN-2 (Knyazev et al., 2021, section 4): pairs of nodes that are joined by a short path.

Dimensions: N nodes, R pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ghnq.graph.ir import ArchGraph

# "No path": larger than any path length, and fits into an int32 when every node of a graph adds a hop to it.
_NO_PATH = np.int32(1 << 30)

MAX_TABLE_NODES = 1000
"""For graphs of up to so many nodes, the table of the distances of all pairs is faster."""


class NodePairs(NamedTuple):
    """Pairs of nodes with a path from one to the other: int64 [R] each, every pair once, in no particular order.

    Attributes:
        source: Where the path starts.
        target: Where it ends.
        hops: The length in edges of the shortest path, at least 1.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    hops: NDArray[np.int64]


def pairs_within(graph: ArchGraph, max_distance: int) -> NodePairs:
    """Returns all pairs at most `max_distance` hops apart, exactly."""
    return _from_table(graph, max_distance) if len(graph) <= MAX_TABLE_NODES else _from_windows(graph, max_distance)


def _from_table(graph: ArchGraph, max_distance: int) -> NodePairs:
    distances = graph.distances()
    source, target = np.nonzero(distances)
    hops = distances[source, target].astype(np.int64)
    if hops.max(initial=0) <= max_distance:
        return NodePairs(source, target, hops)
    near = np.flatnonzero(hops <= max_distance)
    return NodePairs(source[near], target[near], hops[near])


def _from_windows(graph: ArchGraph, max_distance: int) -> NodePairs:
    """Finds the pairs without a table: time and memory are linear in N for graphs of bounded width.

    Each node keeps its distances from a window of preceding nodes, which starts at the first that is near enough. In
    topological order, a node's window is the elementwise minimum of its predecessors' windows, plus one hop, trimmed.
    """
    n = len(graph.nodes)
    starts = list(range(n))
    windows = [np.empty(0, dtype=np.int32)] * n  # windows[v][i]: hops from node starts[v] + i to v
    for v, predecessors in enumerate(graph.predecessors):
        if predecessors:
            starts[v], windows[v] = _window(v, predecessors, starts, windows, max_distance)
    sizes = np.array([len(w) for w in windows])
    target = np.repeat(np.arange(n), sizes)
    source = np.arange(len(target)) + np.repeat(np.array(starts) - np.cumsum(sizes) + sizes, sizes)
    hops = np.concatenate(windows)
    near = np.flatnonzero(hops <= max_distance)
    return NodePairs(source[near], target[near], hops[near].astype(np.int64))


def _window(
    v: int, predecessors: tuple[int, ...], starts: list[int], windows: list[NDArray[np.int32]], max_distance: int
) -> tuple[int, NDArray[np.int32]]:
    """Returns the window of node v: its first node, and the hops from there on."""
    first = min([starts[u] for u in predecessors])
    hops = np.full(v - first, _NO_PATH, dtype=np.int32)
    for u in predecessors:
        part = hops[starts[u] - first : u - first]
        np.minimum(part, windows[u], out=part)
        hops[u - first] = 0
    hops += 1
    if hops[0] > max_distance:
        trimmed = int((hops <= max_distance).argmax())
        return first + trimmed, hops[trimmed:]
    return first, hops
