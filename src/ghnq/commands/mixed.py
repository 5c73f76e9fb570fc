"""`ghnq mixed`: bits for every layer under a budget, written as a scheme file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from rich.markup import escape

from ghnq._version import __version__
from ghnq.analysis.mixed_precision import Budget, Measure, Mixed, layers_table, mix, mixed_table
from ghnq.commands.load_network import Loaded, load_network
from ghnq.commands.options import check_output_or_folder, parse_list, parse_steps
from ghnq.commands.progress_display import measuring
from ghnq.commands.report import kept_document, write_folder_page
from ghnq.commands.terminal import Terminal
from ghnq.errors import GhnqError, nearest
from ghnq.files import one_writer, write_json, write_text
from ghnq.quant import LayerBits, dump_scheme
from ghnq.recorded_names import model_name
from ghnq.report.graph_file import write_graphs
from ghnq.report.readers.mixed import FILE
from ghnq.torch_threads import one_torch_thread

SUFFIXES = (".yaml", ".yml")
SCHEME_FILE = "scheme.yaml"


def mixed(
    model: str,
    *,
    checkpoint: str | None,
    weights: Path | None,
    data: str | None,
    head: str | None,
    budget_bits: float,
    measure: str,
    choices: str,
    activations: int,
    images: int | None,
    steps: str | None,
    out: Path | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Chooses bits for every layer of `model`, measures the choice, and with `out` writes it as a scheme file."""
    bits = _parse_choices(choices)
    LayerBits(bits[0], activations).check(f"w{bits[0]}a{activations}")
    budget = Budget(budget_bits, _parse_measure(measure))
    step_names = parse_steps(steps)
    if out is not None:
        check_output_or_folder(out, SUFFIXES, "scheme files are written as")
    with Terminal(as_json=as_json) as terminal:
        loaded = load_network(
            model, checkpoint=checkpoint, weights=weights, data=data, head=head, images=images, output=output
        )
        with measuring(terminal.progress, "networks") as progress, one_torch_thread():
            result = mix(
                loaded.network, loaded.images, budget,
                choices=bits, activations=activations, steps=step_names, progress=progress,
            )  # fmt: skip
        document = {
            "model": model_name(model),
            **loaded.weights.document,
            **loaded.dataset.record(),
            **result.document(),
            "out": None if out is None else str(out),
            "warnings": terminal.warnings,
        }
        lines = [] if out is None else _write(out, result, document, model, loaded, terminal)
        title = f"{model_name(model)}, {loaded.weights.title}, within {budget.bits:g} bits ({budget.measure})"
        title += "".join(f" + {step}" for step in result.scheme.steps)
        terminal.finish(document, layers_table(result), mixed_table(result, escape(title)), *lines)


def _write(
    out: Path, result: Mixed, document: dict[str, Any], model: str, loaded: Loaded, terminal: Terminal
) -> list[str]:
    """Writes the scheme file, or a folder with it, the document and a page; returns the lines that say so."""
    scheme_file = dump_scheme(result.scheme, _about(result, model, loaded))
    if out.suffix.lower() in SUFFIXES:
        write_text(out, scheme_file)
        return [f"scheme file: [cyan]{out}[/]"]
    costs = {name: asdict(cost) for name, cost in result.costs.items()}
    with one_writer(out):
        write_text(out / SCHEME_FILE, scheme_file)
        write_json(out / FILE, kept_document(document) | {"layer_costs": costs})
        write_graphs(out, {model_name(model): loaded.network.graph})
    page = write_folder_page(out, terminal)
    return [f"scheme file: [cyan]{out / SCHEME_FILE}[/]", f"page: [cyan]{page}[/]"]


def _about(result: Mixed, model: str, loaded: Loaded) -> dict[str, Any]:
    """Returns what the scheme file records about where it comes from."""
    return {
        "model": model_name(model),
        **loaded.weights.document,
        **loaded.dataset.record(),
        "budget_bits": result.budget.bits,
        "measure": result.budget.measure,
        "images": result.images,
        "accuracy": {row.name: round(row.metrics.accuracy, 2) for row in result.measured},
        "ghnq_version": __version__,
    }


def _parse_choices(text: str) -> list[int]:
    items = parse_list(text, "--choices")
    for item in items:
        if not item.isdecimal():
            raise GhnqError(f"--choices '{text}': '{item}' is not a number of bits. Give some, for example 2,4,8.")
        LayerBits(int(item), None).check(f"w{item}")
    return sorted(int(item) for item in items)


def _parse_measure(text: str) -> Measure:
    allowed: tuple[Measure, ...] = get_args(Measure)
    for measure in allowed:
        if text == measure:
            return measure
    raise GhnqError(f"There is no measure '{text}'{nearest(text, allowed)}. Measures are {', '.join(allowed)}.")
