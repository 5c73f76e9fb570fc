"""The results as a figure: a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghnq.errors import MissingExtraError
from ghnq.evaluation.results import Results
from ghnq.files import write_text
from ghnq.spaces import DEFAULT

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe & Ito's colours, distinguishable with colour blindness; float32 is the darkest.
_COLOURS = ("#1b3a57", "#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#7f7f7f")
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "triangle-down")
_INK, _GRID = "#1f2933", "#e4e9ee"


def write_report(results: Results, path: str | Path) -> None:
    """Writes the figure of `draw_results` as one HTML page that needs no network, whole or not at all."""
    write_text(
        path, draw_results(results).to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    )


def draw_results(results: Results) -> go.Figure:
    """Draws accuracy by scheme and accuracy against parameters; one point is one architecture.

    Raises MissingExtraError without plotly.
    """
    try:
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise MissingExtraError("The figure needs plotly: pip install 'ghnq[report]'.") from error

    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.5, 0.5],
        horizontal_spacing=0.09,
        subplot_titles=("Accuracy by scheme", "Accuracy by size"),
    )
    colours = {scheme: _COLOURS[number % len(_COLOURS)] for number, scheme in enumerate(results.schemes)}
    symbols = {split: _SYMBOLS[number % len(_SYMBOLS)] for number, split in enumerate(results.splits)}
    for split, scheme, part in results.parts():
        columns = part.to_pydict()
        labels = _labels(results, split, columns)
        style = {"color": colours[scheme], "symbol": symbols[split]}
        figure.add_trace(_box(split, scheme, columns, labels, style, several=len(symbols) > 1), row=1, col=1)
        figure.add_trace(_scatter(split, scheme, columns, labels, style, several=len(symbols) > 1), row=1, col=2)
    _lay_out(figure, results)
    return figure


def _box(
    split: str, scheme: str, columns: dict[str, list[Any]], labels: list[str], style: dict[str, str], *, several: bool
) -> go.Box:
    import plotly.graph_objects as go

    count = len(columns["accuracy"])
    return go.Box(
        y=columns["accuracy"],
        x=[[split] * count, [scheme] * count] if several else [scheme] * count,
        name=scheme,
        boxpoints="all",
        jitter=0.6,
        pointpos=0,
        boxmean=True,
        width=0.7,
        fillcolor="rgba(0,0,0,0)",
        line={"color": style["color"], "width": 1.6},
        marker={"size": 5, "opacity": 0.45, **style},
        text=labels,
        hovertemplate="%{text}<br>%{y:.1f} %<extra>" + scheme + "</extra>",
        hoveron="points",
        legendgroup=scheme,
        showlegend=False,
    )


def _scatter(
    split: str, scheme: str, columns: dict[str, list[Any]], labels: list[str], style: dict[str, str], *, several: bool
) -> go.Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        x=columns["parameters"],
        y=columns["accuracy"],
        mode="markers",
        name=f"{split} {scheme}" if several else scheme,
        marker={"size": 7, "opacity": 0.7, "line": {"width": 0.5, "color": "white"}, **style},
        text=labels,
        hovertemplate="%{text}<br>%{x:,} parameters, %{y:.1f} %<extra>" + scheme + "</extra>",
        legendgroup=scheme,
    )


def _labels(results: Results, split: str, columns: dict[str, list[Any]]) -> list[str]:
    space = results.about.get("space", DEFAULT)
    return [f"{space}/{split}/{index}" for index in columns["index"]]


def _lay_out(figure: go.Figure, results: Results) -> None:
    about = results.about
    table = results.table
    architectures = len({(row["split"], row["index"]) for row in table.select(["split", "index"]).to_pylist()})
    unseen = "" if "train" in results.splits else " unseen"
    accuracy = table["accuracy"].to_numpy()
    margin = max(1.0, 0.06 * float(np.ptp(accuracy)))
    limits = [max(0.0, float(accuracy.min()) - margin), min(101.0, float(accuracy.max()) + margin)]
    figure.update_layout(
        template="plotly_white",
        font={"family": "Inter, Helvetica, Arial, sans-serif", "size": 14, "color": _INK},
        title={
            "text": f"<b>{architectures}{unseen} architectures, parameters predicted by '{about['checkpoint']}'</b><br>"
            f"<sup>{about['data']}: {about['test_images']:,} test images · {results.setting} · "
            f"{about['calibration_images']:,} calibration images · one point is one architecture</sup>",
            "x": 0.045,
        },
        margin={"t": 130, "b": 70, "l": 70, "r": 30},
        height=560,
        legend={"title": {"text": ""}, "bordercolor": _GRID, "borderwidth": 1},
    )
    figure.update_yaxes(title_text="accuracy, %", range=limits, gridcolor=_GRID, zeroline=False)
    figure.update_xaxes(gridcolor=_GRID, linecolor=_INK)
    figure.update_xaxes(showgrid=False, row=1, col=1)
    figure.update_xaxes(title_text="parameters", type="log", row=1, col=2, dtick="D2", exponentformat="SI")
