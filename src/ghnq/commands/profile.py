"""`ghnq profile`: the cost of an exported file, compared with the same network in float32."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ghnq.commands.options import check_folder
from ghnq.commands.progress_display import measuring
from ghnq.commands.report import kept_document, write_folder_page
from ghnq.commands.terminal import Terminal
from ghnq.deploy import Profile
from ghnq.deploy import profile as measure
from ghnq.errors import GhnqError
from ghnq.files import write_json
from ghnq.optional_imports import import_optional
from ghnq.report.readers.profile import FILE


def profile(file: Path, *, batch: int, threads: int, repeats: int | None, out: Path | None, as_json: bool) -> None:
    """Counts operations and memory of the file, measures its latency, and prints both columns; `out` gets them, too."""
    if file.suffix.lower() == ".pt2" and file.exists():
        raise GhnqError(f"'{file}' is a torch.export program; export the same network as .onnx to profile it.")
    if out is not None:
        check_folder(out)
    import_optional("onnx")
    import_optional("onnxruntime")
    with Terminal(as_json=as_json) as terminal:
        with measuring(terminal.progress, "turns") as progress:
            costs = measure(file, batch=batch, threads=threads, repeats=repeats, progress=progress)
        if costs.float_layers and costs.quantized.bit_operations < costs.float32.bit_operations:
            terminal.warn(
                f"{len(costs.float_layers)} layers run in float on ONNX Runtime; bit-operations and memory are those "
                "of a device that has kernels for them"
            )
        document = costs.document() | {"warnings": terminal.warnings}
        lines = _lines(costs)
        if out is not None:
            write_json(out / FILE, kept_document(document) | {"file": file.name})
            lines.append(f"page: [cyan]{write_folder_page(out, terminal)}[/]")
    terminal.finish(document, _table(costs), *lines)


def _table(costs: Profile) -> Table:
    table = Table(title=f"{costs.file}: {costs.facts.title}")
    table.add_column("")
    for column in ("this file", "float32", "float32 / file"):
        table.add_column(column, justify="right")
    this, other = costs.quantized, costs.float32
    table.add_row("multiply-adds per image", *[f"{costs.multiply_adds:,}"] * 2, "1.00")
    for what, one, two in (
        ("bit-operations per image", this.bit_operations, other.bit_operations),
        ("bytes", this.bytes, other.bytes),
        ("of these weights", this.weight_bytes, other.weight_bytes),
        ("of these weights, packed to their bits", this.packed_weight_bytes, other.packed_weight_bytes),
        ("bytes, compressed", this.compressed_bytes, other.compressed_bytes),
        ("of these weights", this.compressed_weight_bytes, other.compressed_weight_bytes),
        ("peak bytes of activations, one image", this.peak_activation_bytes, other.peak_activation_bytes),
    ):
        table.add_row(what, f"{one:,}", f"{two:,}", _ratio(one, two))
    for what, fast, slow in (
        ("median milliseconds", this.latency.median_ms, other.latency.median_ms),
        ("95th percentile", this.latency.p95_ms, other.latency.p95_ms),
    ):
        table.add_row(what, f"{fast:.3f}", f"{slow:.3f}", _ratio(fast, slow))
    return table


def _ratio(this: float, other: float) -> str:
    return f"{other / this:.2f}" if this else "-"


def _lines(costs: Profile) -> list[str]:
    return [
        *_float_lines(costs),
        f"timed in turns: batch {costs.batch}, threads {costs.threads}, {costs.repeats:,} runs of each, "
        f"{costs.provider} of ONNX Runtime {costs.onnxruntime}",
        costs.processor.line(),
    ]


def _float_lines(costs: Profile) -> list[str]:
    """Returns a line about operators in float, where others are in integers."""
    if not costs.float_operators or costs.quantized.bit_operations == costs.float32.bit_operations:
        return []
    return ["in float: " + ", ".join(f"{count} {name}" for name, count in sorted(costs.float_operators.items()))]
