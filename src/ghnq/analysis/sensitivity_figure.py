"""The sensitivity of the layers as a figure: a self-contained HTML page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ghnq.analysis.sensitivity import Sensitivity
from ghnq.errors import MissingExtraError
from ghnq.files import write_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ALONE, _SPARED, _INK, _GRID = "#d55e00", "#0072b2", "#1f2933", "#e4e9ee"


def write_sensitivity(report: Sensitivity, path: str | Path, title: str) -> None:
    """Writes the figure as one HTML page that needs no network, whole or not at all."""
    page = draw_sensitivity(report, title).to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    write_text(path, page)


def draw_sensitivity(report: Sensitivity, title: str) -> go.Figure:
    """Two bars per layer: the divergence it causes alone, and what is saved when it alone stays in float.

    Raises MissingExtraError without plotly.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtraError("The figure needs plotly: pip install 'ghnq[report]'.") from error

    names = [row.name for row in report.layers]
    whole = report.quantized.divergence
    texts = [
        f"{row.bits}, {row.cost.weights:,} weights, {row.cost.multiply_adds:,} multiply-adds" for row in report.layers
    ]
    bars = (
        ("quantized alone", _ALONE, [row.alone.divergence for row in report.layers]),
        ("saved by leaving it in float", _SPARED, [whole - row.all_but.divergence for row in report.layers]),
    )
    figure = go.Figure()
    for name, colour, values in bars:
        figure.add_trace(
            go.Bar(
                y=names,
                x=[1000 * value if math.isfinite(value) else None for value in values],
                name=name,
                orientation="h",
                marker={"color": colour},
                text=texts,
                textposition="none",
                hovertemplate="%{y}<br>%{text}<br>%{x:.2f}<extra>" + name + "</extra>",
            )
        )
    figure.update_layout(
        template="plotly_white",
        font={"family": "Inter, Helvetica, Arial, sans-serif", "size": 14, "color": _INK},
        title={
            "text": f"<b>{title}</b><br><sup>{report.images:,} test images · float32 "
            f"{report.in_float.accuracy:.1f} %, {report.label} {report.quantized.accuracy:.1f} %</sup>",
            "x": 0.045,
        },
        barmode="group",
        margin={"t": 110, "b": 60, "l": 20, "r": 30},
        height=200 + 34 * len(names),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title_text="divergence from the float network's outputs, nats / 1000", gridcolor=_GRID)
    return figure
