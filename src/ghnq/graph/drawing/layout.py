"""Coordinates for drawings: levels from top to bottom (Sugiyama et al., 1981), in several columns from left to right.

A level holds the nodes with equally long longest paths from the input. An edge over several levels passes these through
waypoints, which are ordered like nodes; all long edges of one node share one chain of waypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import log

from ghnq.graph.ir import ArchGraph

GAP_X, GAP_Y, WAYPOINT = 16.0, 20.0, 10.0
COLUMN_GAP, MARGIN, TRACK_WIDTH = 46.0, 24.0, 7.0
_ASPECT = 1.5
_SWEEPS = 14


@dataclass(slots=True)
class Box:
    """A box of a level.

    Attributes:
        node: The index of the node; -1 for a waypoint of a long edge.
        x: Of the centre.
        y: Of the centre.
    """

    node: int
    level: int
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of an edge, between two boxes of neighbouring levels.

    Attributes:
        start: The index of the upper box.
        end: The index of the lower box.
        source: The node where the edge starts.
        track: If the boxes are in different columns, the index of the parallel track in which the segment runs.
    """

    start: int
    end: int
    source: int
    track: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """The placed boxes and segments.

    Attributes:
        boxes: The first N are the nodes.
        bottoms: The bottom of each column.
        tracks: For each column, how many segments lead from it to the next.
    """

    boxes: list[Box]
    segments: list[Segment]
    bottoms: list[float]
    tracks: list[int]
    width: float
    height: float


def layout(graph: ArchGraph, sizes: Sequence[tuple[float, float]]) -> Layout:
    """Returns coordinates for the nodes of a graph, whose boxes have the given widths and heights."""
    boxes, segments = _boxes_and_segments(graph, sizes)
    rows = _rows(boxes)
    _order(boxes, segments, rows)
    column_starts = _choose_columns(boxes, segments, rows)
    return _place_in_columns(boxes, segments, rows, column_starts)


def _boxes_and_segments(graph: ArchGraph, sizes: Sequence[tuple[float, float]]) -> tuple[list[Box], list[Segment]]:
    levels = graph.levels
    boxes = [Box(i, levels[i], *size) for i, size in enumerate(sizes)]
    segments: list[Segment] = []
    for u, targets in enumerate(graph.successors):
        chain = [u]
        for level in range(levels[u] + 1, max((levels[v] for v in targets), default=0)):
            boxes.append(Box(-1, level, WAYPOINT, 0.0))
            segments.append(Segment(chain[-1], len(boxes) - 1, u))
            chain.append(len(boxes) - 1)
        segments.extend(Segment(chain[levels[v] - levels[u] - 1], v, u) for v in targets)
    return boxes, segments


def _rows(boxes: list[Box]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(1 + max(box.level for box in boxes))]
    for i, box in enumerate(boxes):
        rows[box.level].append(i)
    return rows


def _order(boxes: list[Box], segments: list[Segment], rows: list[list[int]]) -> None:
    """Sweeps down and up: each box moves to the mean of its neighbours, then the boxes of the row are moved apart."""
    above: list[list[tuple[int, float]]] = [[] for _ in boxes]
    below: list[list[tuple[int, float]]] = [[] for _ in boxes]
    for segment in segments:
        waypoints = (boxes[segment.start].node < 0) + (boxes[segment.end].node < 0)
        weight = (1.0, 2.0, 8.0)[waypoints]  # long edges are kept straight
        above[segment.end].append((segment.start, weight))
        below[segment.start].append((segment.end, weight))
    for row in rows:
        _spread(boxes, row)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            for i in row:
                if neighbours[i]:
                    total = sum(weight for _, weight in neighbours[i])
                    boxes[i].x = sum(boxes[j].x * weight for j, weight in neighbours[i]) / total
            if sweep < _SWEEPS - 4:
                row.sort(key=lambda i: (boxes[i].x, boxes[i].node < 0))
            _spread(boxes, row)


def _spread(boxes: list[Box], row: list[int]) -> None:
    """Moves the boxes of a row apart, in their order: the mean of packing from the left and from the right."""
    wanted = [boxes[i].x for i in row]
    apart = [(boxes[a].width + boxes[b].width) / 2 + GAP_X for a, b in pairwise(row)]
    left, right = wanted[:], wanted[:]
    for k, gap in enumerate(apart):
        left[k + 1] = max(left[k + 1], left[k] + gap)
    for k in range(len(apart) - 1, -1, -1):
        right[k] = min(right[k], right[k + 1] - apart[k])
    for i, a, b in zip(row, left, right, strict=True):
        boxes[i].x = (a + b) / 2


def _extent(boxes: list[Box], rows: list[list[int]]) -> tuple[float, float]:
    inside = [boxes[i] for row in rows for i in row]
    return min(s.x - s.width / 2 for s in inside), max(s.x + s.width / 2 for s in inside)


def _height(boxes: list[Box], row: list[int]) -> float:
    return max(boxes[i].height for i in row) + GAP_Y


def _choose_columns(boxes: list[Box], segments: list[Segment], rows: list[list[int]]) -> list[int]:
    """Returns the first level of each column, such that the picture is about 3 : 2 and few edges change columns."""
    crossing = [0] * (len(rows) + 1)
    for segment in segments:
        crossing[boxes[segment.end].level] += 1
    heights = [_height(boxes, row) for row in rows]
    best: tuple[float, list[int]] = (float("inf"), [0])
    for columns in range(1, 13):
        column_starts = _even_columns(heights, crossing, columns)
        parts = [rows[a:b] for a, b in zip(column_starts, [*column_starts[1:], len(rows)], strict=True)]
        extents = [_extent(boxes, part) for part in parts]
        width = sum(right - left + COLUMN_GAP for left, right in extents)
        tallest = max(sum(_height(boxes, row) for row in part) for part in parts)
        cut = sum(crossing[level] - 1 for level in column_starts[1:])
        penalty = abs(log(width / tallest / _ASPECT)) + 0.1 * cut  # a cut edge counts more than a somewhat wide picture
        if penalty < best[0]:
            best = (penalty, column_starts)
    return best[1]


def _even_columns(heights: list[float], crossing: list[int], columns: int) -> list[int]:
    """Returns the first level of columns of about equal height, near which the fewest edges change columns."""
    column_starts, tops = [0], list(accumulate(heights, initial=0.0))
    total = tops.pop()
    for column in range(1, columns):
        target, tolerance = total * column / columns, 0.3 * total / columns
        near = [i for i, top in enumerate(tops) if abs(top - target) <= tolerance and i > column_starts[-1]]
        if near:
            column_starts.append(min(near, key=lambda i: (crossing[i], abs(tops[i] - target))))
    return column_starts


def _place_in_columns(
    boxes: list[Box], segments: list[Segment], rows: list[list[int]], column_starts: list[int]
) -> Layout:
    tracks = [sum(boxes[segment.end].level == first for segment in segments) for first in column_starts[1:]] + [0]
    top = MARGIN + TRACK_WIDTH * max(tracks)
    bottoms: list[float] = []
    x = MARGIN
    for column, (first, after) in enumerate(zip(column_starts, [*column_starts[1:], len(rows)], strict=True)):
        left, right = _extent(boxes, rows[first:after])
        y = top
        for row in rows[first:after]:
            height = _height(boxes, row)
            for i in row:
                boxes[i].x += x - left
                boxes[i].y = y + height / 2
                boxes[i].column = column
            y += height
        bottoms.append(y)
        x += right - left + COLUMN_GAP + TRACK_WIDTH * tracks[column]
    taken = [0] * len(tracks)
    placed = []
    for segment in sorted(segments, key=lambda segment: -boxes[segment.start].x):
        column = boxes[segment.start].column
        if column == boxes[segment.end].column:
            placed.append(segment)
        else:
            placed.append(Segment(segment.start, segment.end, segment.source, taken[column]))
            taken[column] += 1
    return Layout(
        boxes, placed, bottoms, tracks, x - COLUMN_GAP + MARGIN, max(bottoms) + TRACK_WIDTH * max(tracks) + MARGIN
    )
