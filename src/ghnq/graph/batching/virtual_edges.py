"""Which nodes reach which within a few hops: the virtual edges of GHN-2, found without a table of all pairs.

Dimensions: N nodes, R pairs of nodes within reach.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ghnq.graph.ir import ArchGraph

_FAR = np.int32(1 << 30)  # "no path": stays far, and fits, when every node of a graph adds a hop to it

SMALL = 1000
"""Up to so many nodes the table of all pairs is quicker."""


class Reach(NamedTuple):
    """Pairs of nodes with a path from one to the other: int64 [R] each, every pair once, in no particular order.

    hops: length in edges of the shortest path, at least 1.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    hops: NDArray[np.int64]


def reach(graph: ArchGraph, max_distance: int) -> Reach:
    """All pairs at most `max_distance` hops apart, exact."""
    return _from_table(graph, max_distance) if len(graph.nodes) <= SMALL else _from_windows(graph, max_distance)


def _from_table(graph: ArchGraph, max_distance: int) -> Reach:
    distances = graph.distances()
    source, target = np.nonzero(distances)
    hops = distances[source, target].astype(np.int64)
    if hops.max(initial=0) <= max_distance:
        return Reach(source, target, hops)
    near = np.flatnonzero(hops <= max_distance)
    return Reach(source[near], target[near], hops[near])


def _from_windows(graph: ArchGraph, max_distance: int) -> Reach:
    """The same without a table: time and memory are linear in N for chains of bounded width, however long.

    Every node keeps the distances from a window of nodes before it: from the first that is near enough. In topological
    order, a node's window is the smallest of its predecessors' windows, plus one hop, cut again.
    """
    n = len(graph.nodes)
    starts = list(range(n))
    windows = [np.empty(0, dtype=np.int32)] * n  # windows[v][i]: hops from node starts[v] + i to v
    for v, before in enumerate(graph.predecessors):
        if before:
            starts[v], windows[v] = _window(v, before, starts, windows, max_distance)
    sizes = np.array([len(w) for w in windows])
    target = np.repeat(np.arange(n), sizes)
    source = np.arange(len(target)) + np.repeat(np.array(starts) - np.cumsum(sizes) + sizes, sizes)
    hops = np.concatenate(windows)
    near = np.flatnonzero(hops <= max_distance)
    return Reach(source[near], target[near], hops[near].astype(np.int64))


def _window(
    v: int, before: tuple[int, ...], starts: list[int], windows: list[NDArray[np.int32]], max_distance: int
) -> tuple[int, NDArray[np.int32]]:
    """The window of node v: its first node, and the hops from there on."""
    first = min([starts[u] for u in before])
    hops = np.full(v - first, _FAR, dtype=np.int32)
    for u in before:
        part = hops[starts[u] - first : u - first]
        np.minimum(part, windows[u], out=part)
        hops[u - first] = 0
    hops += 1
    if hops[0] > max_distance:
        cut = int((hops <= max_distance).argmax())
        return first + cut, hops[cut:]
    return first, hops
