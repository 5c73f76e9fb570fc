"""`ghnq export`: one model with predicted or stored parameters, calibrated, quantized and written as ONNX or .pt2."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.markup import escape

from ghnq.commands.load_network import Loaded, load_network
from ghnq.commands.options import check_output, check_protocol, parse_steps
from ghnq.commands.terminal import Terminal
from ghnq.data.read_options import current
from ghnq.deploy import Exported, Origin
from ghnq.deploy.export import check_float32, export_prepared
from ghnq.deploy.formats import ExportFormat, OnnxFormat, ProgramFormat
from ghnq.deploy.graph.float_operators import describe_float_operators
from ghnq.deploy.onnx.storage import Storage
from ghnq.errors import GhnqError
from ghnq.prediction import CALIBRATION_SEED
from ghnq.quant import read_scheme
from ghnq.recorded_names import model_name


def export(
    model: str,
    *,
    checkpoint: str | None,
    weights: Path | None,
    scheme: str,
    data: str | None,
    head: str | None,
    out: Path,
    protocol: str | None,
    steps: str | None,
    calibration: int | None,
    pack_int4: bool,
    int8_weights: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Writes `model`, with predicted or stored parameters and quantized, to `out`."""
    check_protocol(protocol)
    parsed = read_scheme(scheme, protocol=protocol, steps=parse_steps(steps) or None)
    check_output(out, (".onnx", ".pt2"), "networks are written as")
    file_format = _format_of(out, Storage(pack_int4=pack_int4, int8_weights=int8_weights))
    with Terminal(as_json=as_json) as terminal, terminal.progress.status(f"Exporting {escape(model)}"):
        loaded = load_network(
            model,
            checkpoint=checkpoint,
            weights=weights,
            data=data,
            head=head,
            calibration=calibration,
            output=output,
        )
        check_float32(loaded.network.module)
        exported = export_prepared(
            loaded.network.prepared(parsed), parsed, file_format, out=out, origin=_origin(loaded, model)
        )
        document = _document(exported) | {"warnings": terminal.warnings}
    proof = ["ghnq", "verify", str(out), "--data", data or loaded.dataset.name]
    terminal.finish(
        document,
        f"[bold]{escape(model)}[/] as {exported.facts.title}: [bold]{exported.size:,}[/] bytes, "
        f"{_describe_format(exported)}",
        *([describe_float_operators(exported.float_operators)] if exported.float_operators else []),
        f"written to [cyan]{out}[/]",
        f"prove it with: {shlex.join([*proof, *current().words()])}",
    )


def _format_of(out: Path, storage: Storage) -> ExportFormat:
    """Returns the format that the file name asks for, once it is known that files can be written in it."""
    file_format: ExportFormat = OnnxFormat(storage)
    if out.suffix.lower() == ".pt2":
        if storage != Storage():
            raise GhnqError("--pack-int4 and --int8-weights are for .onnx; .pt2 files have int8 weights of any bits.")
        file_format = ProgramFormat()
    file_format.check(out)
    return file_format


def _origin(loaded: Loaded, model: str) -> Origin:
    dataset = loaded.dataset
    chosen = loaded.weights
    predicted = chosen.option == "checkpoint"
    return Origin(
        model=model_name(model),
        checkpoint=chosen.recorded_name if predicted else None,
        checkpoint_sha256=chosen.sha256 if predicted else None,
        weights=None if predicted else chosen.recorded_name,
        weights_sha256=None if predicted else chosen.sha256,
        head=chosen.head,
        data=dataset.name,
        data_sha256=dataset.content_hash,
        read_options=dataset.read_options.record() or None,
        calibration_seed=CALIBRATION_SEED,
        mean=tuple(dataset.mean.tolist()),
        std=tuple(dataset.std.tolist()),
    )


def _describe_format(exported: Exported) -> str:
    return "a torch.export program" if exported.opset is None else f"opset {exported.opset}"


def _document(exported: Exported) -> dict[str, object]:
    facts = exported.facts
    return {
        "model": facts.origin.model,
        "out": str(exported.path),
        "scheme": facts.scheme,
        "protocol": facts.protocol,
        "steps": list(facts.steps),
        "scheme_file": facts.scheme_file,
        "bytes": exported.size,
        "opset": exported.opset,
        "float_operators": exported.float_operators,
        "calibration_images": facts.calibration_images,
        "calibration_seed": facts.origin.calibration_seed,
        "checkpoint": facts.origin.checkpoint,
        "checkpoint_sha256": facts.origin.checkpoint_sha256,
        "weights": facts.origin.weights,
        "weights_sha256": facts.origin.weights_sha256,
        "head": facts.origin.head,
        "data": facts.origin.data,
        "data_sha256": facts.origin.data_sha256,
        **({} if facts.origin.read_options is None else {"read_options": facts.origin.read_options}),
        "input_shape": list(facts.input_shape),
    }
