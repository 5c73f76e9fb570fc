"""`ghnq sensitivity`: the loss from quantizing each layer."""

from __future__ import annotations

from pathlib import Path

from ghnq.analysis.sensitivity import measure_sensitivity, sensitivity_table
from ghnq.analysis.sensitivity_figure import write_sensitivity
from ghnq.commands.load_network import load_network
from ghnq.commands.options import check_output, parse_steps
from ghnq.commands.progress_display import measuring
from ghnq.commands.terminal import Terminal
from ghnq.quant import read_scheme
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
    as_json: bool,
) -> None:
    """Measures `model` with each layer quantized alone and left in float alone."""
    parsed = read_scheme(scheme, steps=parse_steps(steps) or None)
    if out is not None:
        check_output(out, (".html",), "the figure is written as")
    with Terminal(as_json=as_json) as terminal:
        loaded = load_network(model, checkpoint=checkpoint, weights=weights, data=data, head=head, images=images)
        with measuring(terminal.progress, "networks") as progress, one_torch_thread():
            report = measure_sensitivity(loaded.network, loaded.images, parsed, progress)
        title = f"Sensitivity of {model} to {report.label}, {loaded.weights.title}"
        lines = []
        if out is not None:
            write_sensitivity(report, out, title)
            lines = [f"figure: [cyan]{out}[/]"]
        document = {
            "model": model,
            **loaded.weights.document,
            "data": loaded.dataset.name,
            **report.document(),
            "out": None if out is None else str(out),
            "warnings": terminal.warnings,
        }
        terminal.finish(document, sensitivity_table(report, title), *lines)
