"""`ghnq verify`: one file of ours on ONNX Runtime, against its simulation."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ghnq.commands.terminal import Terminal
from ghnq.data import ImageDataset, load, resize_dataset
from ghnq.deploy import Parity
from ghnq.deploy import verify as compare
from ghnq.deploy.extra import need
from ghnq.deploy.onnx_reader import facts_of, load_model

SATURATION = {
    True: "this processor has no VNNI, and ONNX Runtime's kernel for int8 weights saturates on it: "
    "export without --int8-weights",
    None: "this file has int8 weights, which saturate on x86 processors without VNNI; the system does not say which "
    "this is",
}


def verify(file: Path, *, data: str | None, images: int | None, as_json: bool) -> None:
    """Runs the file and its simulation on the same test images and prints how far they agree."""
    need("onnx")
    need("onnxruntime")
    with Terminal(as_json=as_json) as terminal, terminal.progress.status(f"Verifying {file}"):
        dataset = _images_for(file, data)
        parity = compare(file, dataset, images=images)
        if parity.saturation is not False:
            terminal.warn(SATURATION[parity.saturation])
        document = parity.document() | {"warnings": terminal.warnings}
    terminal.finish(document, _table(parity), *_lines(parity))


def _images_for(file: Path, data: str | None) -> ImageDataset:
    """The images by name, or those the file was calibrated on, in the size that the file takes."""
    facts = facts_of(load_model(file), file)
    name = data or facts.origin.data
    dataset = load(name if name is not None else "digits")
    channels, height, width = facts.input_shape
    if dataset.input_shape[0] == channels and height == width and dataset.input_shape != facts.input_shape:
        return resize_dataset(dataset, height)
    return dataset


def _table(parity: Parity) -> Table:
    table = Table(title=f"{parity.file}: {parity.facts.scheme}, protocol {parity.facts.protocol}")
    table.add_column("on the same test images")
    table.add_column("", justify="right")
    steps = parity.largest_difference_steps
    for what, value in (
        ("images", f"{parity.images:,}"),
        ("same class", f"{100 * parity.agreement:.2f} %"),
        ("right, simulation", f"{100 * parity.accuracy_simulation:.2f} %"),
        ("right, ONNX Runtime", f"{100 * parity.accuracy_runtime:.2f} %"),
        ("largest difference of a logit", f"{parity.largest_difference:.3g}"),
        ("the same in steps of the last layer's input", "-" if steps is None else f"{steps:.2f}"),
    ):
        table.add_row(what, value)
    return table


def _lines(parity: Parity) -> list[str]:
    kernels = parity.kernels
    lines = [f"in integers: {_counts(kernels.integer)}", f"in float: {_counts(kernels.floating)}"]
    if kernels.float_layers:
        lines.append(f"[yellow]layers in float[/]: {', '.join(kernels.float_layers)}")
    lines.append(f"between the two: {_counts(kernels.borders)}")
    lines.append(f"{parity.processor.line()}; ONNX Runtime {parity.onnxruntime}")
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {op}" for op, count in sorted(counts.items())) or "nothing"
