"""`ghnq sensitivity`: what quantizing each layer costs."""

from __future__ import annotations

from pathlib import Path

from ghnq.analysis.sensitivity import measure_sensitivity, sensitivity_table
from ghnq.analysis.sensitivity_figure import write_sensitivity
from ghnq.commands.options import check_output, parse_steps
from ghnq.commands.progress import measuring
from ghnq.commands.studying import load_subject
from ghnq.commands.terminal import Terminal
from ghnq.evaluation.measure import one_torch_thread
from ghnq.quant import read_scheme


def sensitivity(
    model: str,
    *,
    checkpoint: str,
    scheme: str,
    data: str | None,
    images: int | None,
    steps: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measures `model`, its parameters predicted, with each layer quantized alone and left in float alone."""
    parsed = read_scheme(scheme, steps=parse_steps(steps) or None)
    if out is not None:
        check_output(out, (".html",), "the figure is written as")
    with Terminal(as_json=as_json) as terminal:
        subject = load_subject(model, checkpoint=checkpoint, data=data, images=images)
        with measuring(terminal.progress, "networks") as progress, one_torch_thread():
            report = measure_sensitivity(subject, parsed, progress)
        title = f"Sensitivity of {model} to {report.label}, parameters predicted by '{checkpoint}'"
        lines = []
        if out is not None:
            write_sensitivity(report, out, title)
            lines = [f"figure: [cyan]{out}[/]"]
        document = {
            "model": model,
            "checkpoint": checkpoint,
            "data": subject.dataset.name,
            **report.document(),
            "out": None if out is None else str(out),
            "warnings": terminal.warnings,
        }
        terminal.finish(document, sensitivity_table(report, title), *lines)
