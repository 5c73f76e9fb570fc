"""A description as a table for the terminal and as a figure for the browser."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from ghnq.errors import MissingExtraError
from ghnq.files import write_text
from ghnq.spaces.convnets.description import MEASURES, Description, SplitDescription

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LOGARITHMIC = ("parameters", "multiply_adds", "width", "nodes")
_IN_DISTRIBUTION = ("train", "val", "test")
_NEAR, _FAR = "#2f6db5", "#d97a2b"  # in distribution, out of distribution
_SUFFIXES = ((1e6, "M"), (1e3, "k"))
_UNCOUNTED = ("input", "glob_avg")  # one in every network


def table(description: Description) -> Table:
    """One row per split: how many members, and median [5 %, 95 %] of each measure."""
    height, width = description.input_shape[1:]
    result = Table(title=f"convnets, {height}x{width} images: median [5 %, 95 %]", title_justify="left", pad_edge=False)
    for name in ("split", "members", "cells"):
        result.add_column(name, justify="left" if name == "split" else "right")
    for label in MEASURES.values():
        result.add_column(label.split(" (")[0], justify="right")
    for split in description.splits:
        share = 100 * split.families.get("cells", 0) / split.samples
        result.add_row(split.split, f"{split.size:,}", f"{share:.0f} %", *(_spread(split, name) for name in MEASURES))
    return result


def ops_table(description: Description) -> Table:
    """One row per op: how many nodes of a member's graph have it, on average, in each split."""
    result = Table(title="nodes per network, mean", title_justify="left", pad_edge=False)
    result.add_column("op")
    for split in description.splits:
        result.add_column(split.split, justify="right")
    for op in _ops(description):
        result.add_row(op, *(f"{split.ops.get(op, 0):.1f}" for split in description.splits))
    return result


def figure(description: Description, path: str | os.PathLike[str]) -> None:
    """Writes the figure as one self-contained HTML file. Raises MissingExtraError without plotly."""
    page = draw(description).to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    write_text(path, page)


def draw(description: Description) -> go.Figure:
    """Small multiples: a violin per split and measure, the ops per network. Raises MissingExtraError without plotly."""
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise MissingExtraError("The figure needs plotly: pip install 'ghnq[report]'.") from error
    titles = [*MEASURES.values(), "mean nodes per network, by op"]
    page = make_subplots(rows=2, cols=3, subplot_titles=titles, horizontal_spacing=0.06, vertical_spacing=0.13)
    for number, measure in enumerate(MEASURES):
        place = {"row": number // 3 + 1, "col": number % 3 + 1}
        for split in reversed(description.splits):
            page.add_trace(_violin(go, split, measure), **place)
        page.update_xaxes(**_axis(description, measure), **place)
    page.add_trace(_heatmap(go, description), row=2, col=3)
    page.update_yaxes(autorange="reversed", row=2, col=3)
    height, width = description.input_shape[1:]
    counts = ", ".join(f"{split.split} {split.samples:,}" for split in description.splits)
    near, far = (f"<span style='color:{color}'>" for color in (_NEAR, _FAR))
    legend = f"{near}in distribution</span>, {far}out of distribution</span>; members measured: {counts}"
    page.update_layout(
        title={"text": f"The ConvNets space, {height}x{width} images<br><sub>{legend}</sub>", "x": 0.02},
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#333"},
        showlegend=False,
        violingap=0.08,
        height=820,
        margin={"l": 70, "r": 30, "t": 110, "b": 50},
    )
    page.update_xaxes(showgrid=True, gridcolor="#eee", zeroline=False)
    page.update_yaxes(showgrid=False)
    return page


def _violin(go: Any, split: SplitDescription, measure: str) -> Any:
    values = np.asarray(split.measures[measure], dtype=float)
    color = _NEAR if split.split in _IN_DISTRIBUTION else _FAR
    return go.Violin(
        x=np.log10(values) if measure in _LOGARITHMIC else values,
        y=[split.split] * len(values),
        orientation="h",
        side="positive",
        width=1.7,
        points=False,
        spanmode="hard",
        line={"color": color, "width": 1.2},
        fillcolor=color,
        opacity=0.6,
        meanline_visible=False,
        box={"visible": True, "width": 0.16, "fillcolor": "white", "line": {"color": "#333", "width": 1}},
        hoverinfo="skip",
    )


def _axis(description: Description, measure: str) -> dict[str, Any]:
    """Logarithms are drawn on a linear axis with ticks of our own: a violin's density belongs to what is drawn."""
    if measure not in _LOGARITHMIC:
        return {"rangemode": "tozero"}
    values = [value for split in description.splits for value in split.measures[measure]]
    low, high = np.log10(min(values)), np.log10(max(values))
    steps = (1, 2, 5) if high - low < 2.2 else (1, 3)
    ticks = [step * 10.0**power for power in range(10) for step in steps]
    shown = [tick for tick in ticks if low - 0.05 <= np.log10(tick) <= high + 0.05]
    return {"tickvals": np.log10(shown).tolist(), "ticktext": [_short(tick) for tick in shown]}


def _heatmap(go: Any, description: Description) -> Any:
    ops = _ops(description)
    means = np.array([[split.ops.get(op, 0.0) for split in description.splits] for op in ops])
    return go.Heatmap(
        z=np.log10(means + 0.1),
        x=[split.split for split in description.splits],
        y=ops,
        text=[[f"{mean:.1f}" for mean in row] for row in means],
        texttemplate="%{text}",
        textfont={"size": 11},
        colorscale="Blues",
        zmin=-1,
        zmax=2.2,
        showscale=False,
        xgap=2,
        ygap=2,
        hovertemplate="%{y} in %{x}: %{text}<extra></extra>",
    )


def _ops(description: Description) -> list[str]:
    ops = {op for split in description.splits for op in split.ops} - set(_UNCOUNTED)
    return sorted(ops, key=lambda op: -max(split.ops.get(op, 0.0) for split in description.splits))


def _spread(split: SplitDescription, measure: str) -> str:
    low, middle, high = (split.quantile(measure, level) for level in (0.05, 0.5, 0.95))
    return f"{_short(middle)} [{_short(low)}, {_short(high)}]"


def _short(number: float) -> str:
    for unit, suffix in _SUFFIXES:
        if number >= unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"
