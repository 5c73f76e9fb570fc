"""A description of a space as a figure: a self-contained HTML page."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ghnq.files import write_text
from ghnq.optional_imports import import_optional
from ghnq.spaces.description import MEASURES, Description, SplitDescription
from ghnq.spaces.description_tables import graph_ops, short_number

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LOGARITHMIC = ("parameters", "multiply_adds", "width", "nodes")
_IN_DISTRIBUTION = ("train", "val", "test")
_IN_COLOUR, _OUT_COLOUR = "#2f6db5", "#d97a2b"  # in distribution, out of distribution


def write_figure(description: Description, path: str | os.PathLike[str]) -> None:
    """Writes the figure as one self-contained HTML file.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    page = figure(description).to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    # Which plotly before 7 leaves out; browsers would show the page in quirks mode.
    write_text(path, page if page.lower().startswith("<!doctype") else f"<!doctype html>\n{page}")


def figure(description: Description) -> go.Figure:
    """Returns a figure with a violin plot per split and measure, and the ops per network.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    make_subplots = import_optional("plotly.subplots").make_subplots
    titles = [*MEASURES.values(), "mean nodes per network, by op"]
    page = make_subplots(rows=2, cols=3, subplot_titles=titles, horizontal_spacing=0.06, vertical_spacing=0.13)
    for number, measure in enumerate(MEASURES):
        cell = {"row": number // 3 + 1, "col": number % 3 + 1}
        for split in reversed(description.splits):
            page.add_trace(_violin(split, measure), **cell)
        page.update_xaxes(**_axis(description, measure), **cell)
    page.add_trace(_heatmap(description), row=2, col=3)
    page.update_yaxes(autorange="reversed", row=2, col=3)
    height, width = description.input_shape[1:]
    counts = ", ".join(f"{split.split} {split.samples:,}" for split in description.splits)
    inside, outside = (f"<span style='color:{color}'>" for color in (_IN_COLOUR, _OUT_COLOUR))
    legend = f"{inside}in distribution</span>, {outside}out of distribution</span>; members measured: {counts}"
    page.update_layout(
        title={"text": f"The space {description.space}, {height}x{width} images<br><sub>{legend}</sub>", "x": 0.02},
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


def _violin(split: SplitDescription, measure: str) -> go.Violin:
    import plotly.graph_objects as go

    values = np.asarray(split.measures[measure], dtype=float)
    color = _IN_COLOUR if split.split in _IN_DISTRIBUTION else _OUT_COLOUR
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


def _axis(description: Description, measure: str) -> dict[str, object]:
    """Logarithms are drawn on a linear axis with ticks of our own: a violin's density belongs to what is drawn."""
    if measure not in _LOGARITHMIC:
        return {"rangemode": "tozero"}
    values = [value for split in description.splits for value in split.measures[measure]]
    low, high = np.log10(min(values)), np.log10(max(values))
    steps = (1, 2, 5) if high - low < 2.2 else (1, 3)
    ticks = [step * 10.0**power for power in range(10) for step in steps]
    shown = [tick for tick in ticks if low - 0.05 <= np.log10(tick) <= high + 0.05]
    return {"tickvals": np.log10(shown).tolist(), "ticktext": [short_number(tick) for tick in shown]}


def _heatmap(description: Description) -> go.Heatmap:
    import plotly.graph_objects as go

    ops = graph_ops(description)
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
