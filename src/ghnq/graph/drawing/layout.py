"""Coordinates for drawings: levels from top to bottom (Sugiyama et al., 1981), folded into columns like a newspaper.

A level holds the nodes with the same longest path from the input. An edge over several levels passes them through
waypoints, which take part in the ordering like nodes; all long edges of one node share one chain of waypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import log

from ghnq.graph.ir import ArchGraph

GAP_X, GAP_Y, WAYPOINT = 16.0, 20.0, 10.0
GUTTER, MARGIN, LANE = 46.0, 24.0, 7.0
_ASPECT = 1.5
_SWEEPS = 14


@dataclass(slots=True)
class Slot:
    """A place in a level: a node, or a waypoint of a long edge (node -1). x, y: its centre."""

    node: int
    level: int
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A piece of an edge between two slots of neighbouring levels; `source` is the node where the edge starts."""

    start: int
    end: int
    source: int
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Slots (the first N are the nodes) and links; for every column its bottom and how many links leave it sideways."""

    slots: list[Slot]
    links: list[Link]
    bottoms: list[float]
    lanes: list[int]
    width: float
    height: float


def layout(graph: ArchGraph, sizes: Sequence[tuple[float, float]]) -> Layout:
    """Coordinates for the nodes of a graph, whose boxes have the given widths and heights."""
    slots, links = _slots_and_links(graph, sizes)
    rows = _rows(slots)
    _order(slots, links, rows)
    folds = _folds(slots, links, rows)
    return _fold(slots, links, rows, folds)


def _slots_and_links(graph: ArchGraph, sizes: Sequence[tuple[float, float]]) -> tuple[list[Slot], list[Link]]:
    levels = graph.levels
    slots = [Slot(i, levels[i], *size) for i, size in enumerate(sizes)]
    links: list[Link] = []
    for u, targets in enumerate(graph.successors):
        chain = [u]
        for level in range(levels[u] + 1, max((levels[v] for v in targets), default=0)):
            slots.append(Slot(-1, level, WAYPOINT, 0.0))
            links.append(Link(chain[-1], len(slots) - 1, u))
            chain.append(len(slots) - 1)
        links.extend(Link(chain[levels[v] - levels[u] - 1], v, u) for v in targets)
    return slots, links


def _rows(slots: list[Slot]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(1 + max(slot.level for slot in slots))]
    for i, slot in enumerate(slots):
        rows[slot.level].append(i)
    return rows


def _order(slots: list[Slot], links: list[Link], rows: list[list[int]]) -> None:
    """Sweeps down and up: every slot is drawn to the mean of its neighbours, then the row is spread without overlap."""
    above: list[list[tuple[int, float]]] = [[] for _ in slots]
    below: list[list[tuple[int, float]]] = [[] for _ in slots]
    for link in links:
        waypoints = (slots[link.start].node < 0) + (slots[link.end].node < 0)
        weight = (1.0, 2.0, 8.0)[waypoints]  # long edges are kept straight
        above[link.end].append((link.start, weight))
        below[link.start].append((link.end, weight))
    for row in rows:
        _spread(slots, row)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            for i in row:
                if neighbours[i]:
                    total = sum(weight for _, weight in neighbours[i])
                    slots[i].x = sum(slots[j].x * weight for j, weight in neighbours[i]) / total
            if sweep < _SWEEPS - 4:
                row.sort(key=lambda i: (slots[i].x, slots[i].node < 0))
            _spread(slots, row)


def _spread(slots: list[Slot], row: list[int]) -> None:
    """Moves the slots of a row apart, in their order: the mean of packing from the left and from the right."""
    wanted = [slots[i].x for i in row]
    apart = [(slots[a].width + slots[b].width) / 2 + GAP_X for a, b in pairwise(row)]
    left, right = wanted[:], wanted[:]
    for k, gap in enumerate(apart):
        left[k + 1] = max(left[k + 1], left[k] + gap)
    for k in range(len(apart) - 1, -1, -1):
        right[k] = min(right[k], right[k + 1] - apart[k])
    for i, a, b in zip(row, left, right, strict=True):
        slots[i].x = (a + b) / 2


def _extent(slots: list[Slot], rows: list[list[int]]) -> tuple[float, float]:
    inside = [slots[i] for row in rows for i in row]
    return min(s.x - s.width / 2 for s in inside), max(s.x + s.width / 2 for s in inside)


def _height(slots: list[Slot], row: list[int]) -> float:
    return max(slots[i].height for i in row) + GAP_Y


def _folds(slots: list[Slot], links: list[Link], rows: list[list[int]]) -> list[int]:
    """The first level of every column, for the number of columns that makes the picture about 3 : 2 and cuts little."""
    crossing = [0] * (len(rows) + 1)
    for link in links:
        crossing[slots[link.end].level] += 1
    heights = [_height(slots, row) for row in rows]
    best: tuple[float, list[int]] = (float("inf"), [0])
    for columns in range(1, 13):
        folds = _even_folds(heights, crossing, columns)
        parts = [rows[a:b] for a, b in zip(folds, [*folds[1:], len(rows)], strict=True)]
        extents = [_extent(slots, part) for part in parts]
        width = sum(right - left + GUTTER for left, right in extents)
        tallest = max(sum(_height(slots, row) for row in part) for part in parts)
        cut = sum(crossing[level] - 1 for level in folds[1:])
        misfit = abs(log(width / tallest / _ASPECT)) + 0.1 * cut  # rather a little too wide than many edges cut
        if misfit < best[0]:
            best = (misfit, folds)
    return best[1]


def _even_folds(heights: list[float], crossing: list[int], columns: int) -> list[int]:
    """Columns of about equal height, each cut moved to where the fewest edges cross nearby."""
    folds, tops = [0], list(accumulate(heights, initial=0.0))
    total = tops.pop()
    for column in range(1, columns):
        target, reach = total * column / columns, 0.3 * total / columns
        near = [i for i, top in enumerate(tops) if abs(top - target) <= reach and i > folds[-1]]
        if near:
            folds.append(min(near, key=lambda i: (crossing[i], abs(tops[i] - target))))
    return folds


def _fold(slots: list[Slot], links: list[Link], rows: list[list[int]], folds: list[int]) -> Layout:
    lanes = [sum(slots[link.end].level == first for link in links) for first in folds[1:]] + [0]
    top = MARGIN + LANE * max(lanes)
    bottoms: list[float] = []
    x = MARGIN
    for column, (first, after) in enumerate(zip(folds, [*folds[1:], len(rows)], strict=True)):
        left, right = _extent(slots, rows[first:after])
        y = top
        for row in rows[first:after]:
            height = _height(slots, row)
            for i in row:
                slots[i].x += x - left
                slots[i].y = y + height / 2
                slots[i].column = column
            y += height
        bottoms.append(y)
        x += right - left + GUTTER + LANE * lanes[column]
    taken = [0] * len(lanes)
    placed = []
    for link in sorted(links, key=lambda link: -slots[link.start].x):
        column = slots[link.start].column
        if column == slots[link.end].column:
            placed.append(link)
        else:
            placed.append(Link(link.start, link.end, link.source, taken[column]))
            taken[column] += 1
    return Layout(slots, placed, bottoms, lanes, x - GUTTER + MARGIN, max(bottoms) + LANE * max(lanes) + MARGIN)
