"""`ghnq verify`: an exported file on its runtime, ONNX Runtime or torch, compared with its simulation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from ghnq.commands.terminal import Terminal
from ghnq.data import ImageDataset, load, resize_dataset
from ghnq.deploy import Parity, ProgramParity, verify_program
from ghnq.deploy import verify as compare
from ghnq.deploy.comparison import Agreement
from ghnq.deploy.graph.kernel_counts import KernelCounts
from ghnq.deploy.metadata import Facts
from ghnq.deploy.onnx.reader import facts_of, load_model
from ghnq.deploy.pt2e.program_file import read_facts
from ghnq.errors import GhnqError
from ghnq.optional_imports import import_optional

SATURATION = {
    True: "this processor has no VNNI, and ONNX Runtime's kernel for int8 weights saturates on it: "
    "export without --int8-weights",
    None: "this file has int8 weights, which saturate on x86 processors without VNNI; the system does not say which "
    "this is",
}


SATURATING = (
    "this processor has no VNNI, or does not say so, and its integer kernels saturate on wide int8 weights: {layers} "
    "ran in float; with a scheme of 7-bit weights (w7a8) they run in integers"
)


def verify(file: Path, *, data: str | None, images: int | None, compiled: bool, as_json: bool) -> None:
    """Runs a file and its simulation on the same test images and prints how far they agree."""
    if file.suffix.lower() == ".pt2":
        _verify_program(file, data, images, compiled, as_json)
        return
    if compiled:
        raise GhnqError(f"--compile is for .pt2 files; '{file}' runs on ONNX Runtime")
    import_optional("onnx")
    import_optional("onnxruntime")
    with Terminal(as_json=as_json) as terminal, terminal.progress.status(f"Verifying {file}"):
        dataset = _images_for(facts_of(load_model(file), file), data)
        parity = compare(file, dataset, images=images)
        if parity.saturation is not False:
            terminal.warn(SATURATION[parity.saturation])
        document = parity.document() | {"warnings": terminal.warnings}
    terminal.finish(document, _table(parity), *_lines(parity))


def _verify_program(file: Path, data: str | None, images: int | None, compiled: bool, as_json: bool) -> None:
    if compiled:
        import_optional("torchao")
    with Terminal(as_json=as_json) as terminal, terminal.progress.status(f"Verifying {file}"):
        dataset = _images_for(read_facts(file), data)
        parity = verify_program(file, dataset, images=images, compile=compiled)
        if parity.compiled is not None and parity.compiled.saturating:
            layers = ", ".join(parity.compiled.saturating)
            terminal.warn(SATURATING.format(layers=layers))
        document = parity.document() | {"warnings": terminal.warnings}
    terminal.finish(document, _program_table(parity), *_program_lines(parity))


def _images_for(facts: Facts, data: str | None) -> ImageDataset:
    """Returns the data set by name, or that of the calibration, with images of the size that the file takes."""
    dataset = load("digits") if data is None and facts.origin.data is None else facts.images.load(data)
    channels, height, width = facts.input_shape
    if dataset.input_shape[0] == channels and height == width and dataset.input_shape != facts.input_shape:
        dataset = resize_dataset(dataset, height)
    facts.images.warn_about_other(dataset)
    return dataset


def _table(parity: Parity) -> Table:
    table = Table(title=f"{parity.file}: {parity.facts.title}")
    table.add_column("on the same test images")
    table.add_column("", justify="right")
    for what, value in (
        ("images", f"{parity.images:,}"),
        ("same class", f"{100 * parity.agreement:.2f} %"),
        ("right, simulation", f"{100 * parity.accuracy_simulation:.2f} %"),
        ("right, ONNX Runtime", f"{100 * parity.accuracy_runtime:.2f} %"),
        ("largest difference of a logit", f"{parity.largest_difference:.3g}"),
        ("the same in steps of the last layer's input", _steps(parity.largest_difference_steps)),
    ):
        table.add_row(what, value)
    return table


def _program_table(parity: ProgramParity) -> Table:
    table = Table(title=f"{parity.file}: {parity.facts.title}")
    table.add_column(f"on the same {parity.images:,} test images")
    runs = {"loaded": parity.eager} | ({} if parity.compiled is None else {"compiled": parity.compiled})
    for name in runs:
        table.add_column(name, justify="right")

    def row(what: str, text: Callable[[Agreement], str]) -> None:
        table.add_row(what, *(text(run) for run in runs.values()))

    row("same class as the simulation", lambda run: f"{100 * run.agreement:.2f} %")
    row("right", lambda run: f"{100 * run.accuracy:.2f} %")
    row("right, simulation", lambda run: f"{100 * parity.accuracy_simulation:.2f} %")
    row("largest difference of a logit", lambda run: f"{run.largest_difference:.3g}")
    row("the same in steps of the last layer's input", lambda run: _steps(run.largest_difference_steps))
    return table


def _program_lines(parity: ProgramParity) -> list[str]:
    versions = f"{parity.processor.line()}; torch {parity.torch}"
    if parity.compiled is None:
        return [versions, "to measure it compiled as well: --compile"]
    return [*_kernel_lines(parity.compiled.kernels), f"{versions}, torchao {parity.compiled.torchao}"]


def _steps(steps: float | None) -> str:
    return "-" if steps is None else f"{steps:.2f}"


def _lines(parity: Parity) -> list[str]:
    return [*_kernel_lines(parity.kernels), f"{parity.processor.line()}; ONNX Runtime {parity.onnxruntime}"]


def _kernel_lines(kernels: KernelCounts) -> list[str]:
    lines = [f"in integers: {_counts(kernels.integer)}", f"in float: {_counts(kernels.floating)}"]
    if kernels.float_layers:
        lines.append(f"[yellow]layers in float[/]: {', '.join(kernels.float_layers)}")
    lines.append(f"between the two: {_counts(kernels.borders)}")
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {op}" for op, count in sorted(counts.items())) or "nothing"
