"""`ghnq draw`: the graph of one model as SVG or HTML."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from ghnq.commands.options import check_output, parse_shape
from ghnq.commands.terminal import Terminal
from ghnq.graph import trace
from ghnq.graph.drawing.draw import draw as draw_graph
from ghnq.models import load_model
from ghnq.recorded_names import model_name


def draw(model: str, *, input_shape: str, out: Path, output: str | None) -> None:
    """Traces `model` and draws its graph into `out`, a `.svg` or `.html` file."""
    shape = parse_shape(input_shape)
    check_output(out, (".svg", ".html"), "graphs are drawn as")
    with Terminal(as_json=False) as terminal:
        graph = trace(load_model(model, input_shape=shape), shape, output=output)
        draw_graph(graph, out, title=model_name(model))
        terminal.finish(
            None,
            f"[bold]{escape(model)}[/]: {len(graph.nodes)} nodes, {len(graph.edges)} edges, "
            f"{graph.num_parameters:,} parameters, {graph.multiply_adds:,} multiply-adds",
            f"drawn to [cyan]{out}[/]",
        )
