"""A graph as SVG: boxes in the colours of the ops, labels with shapes, curved edges, a legend."""

from __future__ import annotations

from collections import Counter
from html import escape

from ghnq.graph.drawing.layout import COLUMN_GAP, MARGIN, TRACK_WIDTH, Layout, Segment, layout
from ghnq.graph.ir import ArchGraph, Node
from ghnq.graph.ops import KERNEL_OPS, OPS

_TWO_LINES = ("input", *KERNEL_OPS, "max_pool", "avg_pool", "glob_avg", "msa", "pos_enc")
_FONT = "font-family='Inter, system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif'"
_HEAD, _LEGEND_ROW = 58.0, 24.0
_TITLES = {
    "sep_conv": "sep conv",
    "dil_conv": "dil conv",
    "max_pool": "max pool",
    "avg_pool": "avg pool",
    "glob_avg": "global avg",
    "pos_enc": "positions",
}


def svg(graph: ArchGraph, title: str) -> str:
    """Returns the picture as one SVG element; hovering over a node shows its name, shapes and parameters."""
    labels = [label(node) for node in graph.nodes]
    placed = layout(graph, [_size(lines) for lines in labels])
    legend, legend_height, width = _legend(graph, max(placed.width, 480.0))
    head = _HEAD + legend_height
    height = placed.height + head
    shift = (width - placed.width) / 2
    facts = (
        f"{len(graph)} nodes · {len(graph.edges)} edges · {quantity(graph.num_parameters)} parameters · "
        f"{quantity(graph.multiply_adds)} multiply-adds · input {_times(graph.input_shape)}"
    )
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
        f"height='{height:.0f}' {_FONT} role='img' aria-label='{escape(title, quote=True)}'>",
        "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='6' markerHeight='6' orient='auto'>"
        "<path d='M0 0.8 L7 4 L0 7.2 z' fill='#8b95a5'/></marker></defs>",
        f"<rect width='{width:.0f}' height='{height:.0f}' fill='#ffffff'/>",
        f"<text x='{MARGIN}' y='32' font-size='17' font-weight='650' fill='#1f2933'>{escape(title)}</text>",
        f"<text x='{MARGIN}' y='50' font-size='11.5' fill='#616e7c'>{escape(facts)}</text>",
        legend,
        f"<g transform='translate({shift:.1f} {head:.1f})'>",
        "<g fill='none' stroke='#9aa5b1' stroke-width='1.3' stroke-linecap='round'>",
        *(_edge(placed, segment) for segment in placed.segments),
        "</g>",
        *(_node(graph, placed, i, lines) for i, lines in enumerate(labels)),
        "</g></svg>",
    ]
    return "\n".join(parts)


def label(node: Node) -> tuple[str, ...]:
    """Returns the one or two lines in a box: the op with its kernel, and channels or shape of the activation."""
    title = _TITLES.get(node.op, node.op)
    after = _times(node.output_shape)
    if node.op not in _TWO_LINES:
        return (title,)
    if node.shape is None:
        return (title, after) if after else (title,)
    out, in_, height, width = node.shape
    if node.op in ("max_pool", "avg_pool"):
        return (f"{title} {height}×{width}", after)
    if len(node.output_shape) == 1:
        return ("linear", f"{in_} → {out}")
    channels = f"{in_} → {out}" if node.op == "conv" else str(out)
    return (f"{title} {height}×{width}", f"{channels} · {_times(node.output_shape[1:])}")


def quantity(number: int) -> str:
    """Returns a count in three digits: 12, 3.46 k, 26.7 M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _size(lines: tuple[str, ...]) -> tuple[float, float]:
    if len(lines) == 1:
        return max(44.0, 20 + 6.3 * len(lines[0])), 21.0
    return max(92.0, 22 + 6.9 * len(lines[0]), 20 + 5.3 * len(lines[1])), 36.0


def _text_colour(fill: str) -> str:
    red, green, blue = (int(fill[i : i + 2], 16) for i in (1, 3, 5))
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 150 else "#1f2933"


def _node(graph: ArchGraph, placed: Layout, i: int, lines: tuple[str, ...]) -> str:
    node, box = graph.nodes[i], placed.boxes[i]
    fill = OPS[node.op].colour
    text_colour = _text_colour(fill)
    left, top = box.x - box.width / 2, box.y - box.height / 2
    round_by = 7 if len(lines) > 1 else box.height / 2
    if len(lines) == 1:
        text = f"<text x='{box.x:.1f}' y='{box.y + 3.8:.1f}' font-size='11' font-weight='600'>{escape(lines[0])}</text>"
    else:
        text = (
            f"<text x='{box.x:.1f}' y='{box.y - 3:.1f}' font-size='11.5' font-weight='650'>{escape(lines[0])}</text>"
            f"<text x='{box.x:.1f}' y='{box.y + 10.5:.1f}' font-size='9.5' opacity='0.88'>{escape(lines[1])}</text>"
        )
    return (
        f"<g class='node' data-node='{i}' text-anchor='middle' fill='{text_colour}'>"
        f"<title>{escape(describe(graph, i))}</title>"
        f"<rect x='{left:.1f}' y='{top:.1f}' width='{box.width:.1f}' height='{box.height:.1f}' rx='{round_by:.1f}' "
        f"fill='{fill}' stroke='#1f2933' stroke-opacity='0.18'/>{text}</g>"
    )


def describe(graph: ArchGraph, i: int) -> str:
    """Returns the lines that hovering over a node shows."""
    node = graph.nodes[i]
    lines = [node.name, f"{i}: {node.op} ({OPS[node.op].summary})"]
    if node.shape is not None:
        lines.append(f"shape: {_times(node.shape)}")
    if (stride := stride_of(graph, i)) is not None:
        lines.append(f"stride: {stride}, by the shapes")
    if node.output_shape:
        lines.append(f"output: {_times(node.output_shape)}")
    lines += [f"{p.name}: {_times(p.shape)} ({p.role})" for p in graph.parameters if p.node == i]
    return "\n".join(lines)


def stride_of(graph: ArchGraph, i: int) -> int | None:
    """Returns the stride of a convolution or pooling by the shapes; None for other nodes, and where none fits.

    Graphs have no strides: this is the smallest s with floor((height + 2 p - k) / s) + 1 = height of the output. Where
    several paddings p fit, that which keeps the size at stride 1 is taken, then none, then any up to k.
    """
    node = graph.nodes[i]
    sources = [graph.nodes[each].output_shape for each in graph.predecessors[i]]
    if node.op not in (*KERNEL_OPS, "max_pool", "avg_pool") or node.shape is None or len(node.output_shape) != 3:
        return None
    if len(sources) != 1 or len(sources[0]) != 3:
        return None
    height, after, kernel = sources[0][1], node.output_shape[1], node.shape[2]
    for padding in ((kernel - 1) // 2, 0, *range(kernel + 1)):
        for stride in range(1, height + 1):
            if height + 2 * padding >= kernel and (height + 2 * padding - kernel) // stride + 1 == after:
                return stride
    return None


def _edge(placed: Layout, segment: Segment) -> str:
    start, end = placed.boxes[segment.start], placed.boxes[segment.end]
    x1, y1, x2, y2 = start.x, start.y + start.height / 2, end.x, end.y - end.height / 2
    if start.column == end.column:
        bend = (y2 - y1) / 2
        path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
    else:
        path = _path_to_next_column(placed, segment, x1, y1, x2, y2)
    arrow = " marker-end='url(#tip)'" if end.node >= 0 else ""
    target = f" data-to='{end.node}'" if end.node >= 0 else ""
    return f"<path class='edge' data-from='{segment.source}'{target} d='{path}'{arrow}/>"


def _path_to_next_column(placed: Layout, segment: Segment, x1: float, y1: float, x2: float, y2: float) -> str:
    """Returns the path from the foot of a column, between the columns, to the head of the next, in its own track."""
    column = placed.boxes[segment.start].column
    edge_of_next = min(s.x - s.width / 2 for s in placed.boxes if s.column == column + 1)
    top_of_next = min(s.y - s.height / 2 for s in placed.boxes if s.column == column + 1)
    mid = edge_of_next - COLUMN_GAP / 3 - TRACK_WIDTH * (placed.tracks[column] - 1 - segment.track)
    low, high = placed.bottoms[column] + TRACK_WIDTH * segment.track, top_of_next - 20 - TRACK_WIDTH * segment.track
    r = 9.0
    toward = r if x2 > mid else -r
    return (
        f"M{x1:.1f} {y1:.1f}V{low - r:.1f}Q{x1:.1f} {low:.1f} {x1 + r:.1f} {low:.1f}H{mid - r:.1f}"
        f"Q{mid:.1f} {low:.1f} {mid:.1f} {low - r:.1f}V{high + r:.1f}"
        f"Q{mid:.1f} {high:.1f} {mid + toward:.1f} {high:.1f}"
        f"H{x2 - toward:.1f}Q{x2:.1f} {high:.1f} {x2:.1f} {high + r:.1f}V{y2:.1f}"
    )


def _legend(graph: ArchGraph, width: float) -> tuple[str, float, float]:
    """Returns the ops that occur with colours and counts, in as many rows as needed; the height of these; the width."""
    counts = Counter(node.op for node in graph.nodes)
    x, y, parts = MARGIN, _HEAD + 8, []
    for op in (OPS[name] for name in counts):  # in the order of the graph
        text = f"{_TITLES.get(op.name, op.name)} × {counts[op.name]}"
        step = 34 + 6.2 * len(text)
        if x + step > width - MARGIN and x > MARGIN:
            x, y = MARGIN, y + _LEGEND_ROW
        parts.append(
            f"<rect x='{x:.1f}' y='{y:.1f}' width='13' height='13' rx='4' fill='{op.colour}' stroke='#1f2933' "
            f"stroke-opacity='0.18'/><text x='{x + 19:.1f}' y='{y + 10.5:.1f}' font-size='11' fill='#3e4c59'>"
            f"{escape(text)}<title>{escape(op.summary)}</title></text>"
        )
        x += step
    return "\n".join(parts), y + _LEGEND_ROW - _HEAD, width
