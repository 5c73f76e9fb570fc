"""`ghnq sensitivity`: the loss from quantizing each layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from ghnq.analysis.sensitivity import measure_sensitivity, sensitivity_table
from ghnq.commands.load_network import load_network
from ghnq.commands.options import check_output_or_folder, parse_steps
from ghnq.commands.progress_display import measuring
from ghnq.commands.report import kept_document, this_command, write_folder_page
from ghnq.commands.terminal import Terminal
from ghnq.files import one_writer, write_json
from ghnq.graph import ArchGraph
from ghnq.quant import read_scheme
from ghnq.recorded_names import model_name
from ghnq.report import write_page
from ghnq.report.graph_file import write_graphs
from ghnq.report.readers.sensitivity import FILE, sensitivity_document
from ghnq.torch_threads import one_torch_thread


def sensitivity(
    model: str,
    *,
    checkpoint: str | None,
    weights: Path | None,
    scheme: str,
    data: str | None,
    head: str | None,
    images: int | None,
    steps: str | None,
    out: Path | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Measures `model` with each layer quantized alone and left in float alone."""
    parsed = read_scheme(scheme, steps=parse_steps(steps) or None)
    if out is not None:
        check_output_or_folder(out, (".html",), "the page is written as")
    with Terminal(as_json=as_json) as terminal:
        loaded = load_network(
            model, checkpoint=checkpoint, weights=weights, data=data, head=head, images=images, output=output
        )
        with measuring(terminal.progress, "networks") as progress, one_torch_thread():
            report = measure_sensitivity(loaded.network, loaded.images, parsed, progress)
        title = f"Sensitivity of {model_name(model)} to {report.label}, {loaded.weights.title}"
        document = {
            "model": model_name(model),
            **loaded.weights.document,
            **loaded.dataset.record(),
            **report.document(),
            "out": None if out is None else str(out),
            "warnings": terminal.warnings,
        }
        lines = []
        if out is not None:
            graphs = {model_name(model): loaded.network.graph}
            lines = [f"page: [cyan]{_write(out, document, graphs, title, terminal)}[/]"]
        terminal.finish(document, sensitivity_table(report, escape(title)), *lines)


def _write(out: Path, document: dict[str, Any], graphs: dict[str, ArchGraph], title: str, terminal: Terminal) -> Path:
    """Writes the page, or a folder with the document, the graph and the page; returns the page."""
    if out.suffix.lower() == ".html":
        read = replace(sensitivity_document(out.parent, document, out), name=title, graphs=graphs)
        write_page([replace(read, commands=[this_command()])], out, title=title, command=this_command())
        return out
    with one_writer(out):
        write_json(out / FILE, kept_document(document))
        write_graphs(out, graphs)
    return write_folder_page(out, terminal)
