"""`ghnq export`: one model with predicted parameters, calibrated, quantized and written as ONNX or .pt2."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ghnq.commands.options import check_output, check_protocol, parse_steps
from ghnq.commands.terminal import Terminal
from ghnq.deploy import Exported, Origin, export_onnx, export_program
from ghnq.errors import GhnqError
from ghnq.evaluation import check_fit, check_outputs, dataset_for
from ghnq.evaluation.provenance import weights_hash
from ghnq.graph import trace
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize
from ghnq.models import load_model
from ghnq.optional_imports import import_optional
from ghnq.quant import read_scheme

BATCH = 256
SEED = 0


def export(
    model: str,
    *,
    checkpoint: str,
    scheme: str,
    data: str | None,
    out: Path,
    protocol: str | None,
    steps: str | None,
    calibration: int,
    pack_int4: bool,
    int8_weights: bool,
    as_json: bool,
) -> None:
    """Predicts the parameters of `model` and writes the quantized network to `out`."""
    check_protocol(protocol)
    parsed = read_scheme(scheme, protocol=protocol, steps=parse_steps(steps) or None)
    check_output(out, (".onnx", ".pt2"), "networks are written as")
    as_program = out.suffix.lower() == ".pt2"
    if as_program and (pack_int4 or int8_weights):
        raise GhnqError("--pack-int4 and --int8-weights are for .onnx; .pt2 files have int8 weights of any bits.")
    if not as_program:
        import_optional("onnx")
    with Terminal(as_json=as_json) as terminal, terminal.progress.status(f"Exporting {model}"):
        ghn = GHN.from_pretrained(checkpoint)
        dataset = dataset_for(ghn, data)
        check_fit(ghn, dataset)
        module = load_model(model, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
        check_outputs(trace(module, dataset.input_shape).num_outputs, dataset)
        network = initialize(module, ghn, dataset.input_shape, scheme=parsed)
        origin = Origin(
            model=model,
            checkpoint=checkpoint,
            checkpoint_sha256=weights_hash(ghn),
            data=dataset.name,
            calibration_seed=SEED,
            mean=tuple(dataset.mean.tolist()),
            std=tuple(dataset.std.tolist()),
        )
        write = export_program if as_program else partial(export_onnx, pack_int4=pack_int4, int8_weights=int8_weights)
        exported = write(
            network,
            parsed,
            calibration=dataset.calibration(calibration, SEED),
            out=out,
            batch_size=min(BATCH, calibration),
            origin=origin,
        )
        document = _document(exported, model) | {"warnings": terminal.warnings}
    terminal.finish(
        document,
        f"[bold]{model}[/] as {exported.facts.title}: [bold]{exported.size:,}[/] bytes, {_format(exported)}",
        f"written to [cyan]{out}[/]",
        f"prove it with: ghnq verify {out} --data {dataset.name}",
    )


def _format(exported: Exported) -> str:
    return "a torch.export program" if exported.opset is None else f"opset {exported.opset}"


def _document(exported: Exported, model: str) -> dict[str, object]:
    facts = exported.facts
    return {
        "model": model,
        "out": str(exported.path),
        "scheme": facts.scheme,
        "protocol": facts.protocol,
        "steps": list(facts.steps),
        "scheme_file": facts.scheme_file,
        "bytes": exported.size,
        "opset": exported.opset,
        "calibration_images": facts.calibration_images,
        "calibration_seed": facts.origin.calibration_seed,
        "checkpoint": facts.origin.checkpoint,
        "checkpoint_sha256": facts.origin.checkpoint_sha256,
        "data": facts.origin.data,
        "input_shape": list(facts.input_shape),
    }
