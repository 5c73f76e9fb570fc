"""From a module with weights to a file that integer kernels run: ONNX, or a torch.export program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from ghnq.deploy.formats import ExportFormat, OnnxFormat, ProgramFormat
from ghnq.deploy.graph.finite import check_simulation
from ghnq.deploy.graph.float_operators import float_operators
from ghnq.deploy.graph.simulation import simulate
from ghnq.deploy.metadata import Facts, Origin
from ghnq.deploy.onnx.storage import Storage
from ghnq.errors import DataError, ExportError
from ghnq.network_outputs import take_output
from ghnq.quant import Prepared, QuantScheme, TrainableNetwork, prepare
from ghnq.quant.calibration import batches


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that was written.

    Attributes:
        path: The file.
        size: Its size in bytes.
        opset: Of ONNX; None for a torch.export program.
        facts: The metadata in the file.
        simulation: The simulated network that the file holds.
    """

    path: Path
    size: int
    opset: int | None
    facts: Facts
    simulation: fx.GraphModule

    @property
    def float_operators(self) -> dict[str, int]:
        """How many operators between quantized layers are computed in float, by name."""
        return float_operators(self.simulation)


def export_onnx(
    module: nn.Module,
    scheme: QuantScheme | str,
    *,
    calibration: Tensor,
    out: str | os.PathLike[str],
    protocol: str = "deploy",
    steps: Sequence[str] | None = None,
    batch_size: int = 256,
    pack_int4: bool = False,
    int8_weights: bool = False,
    origin: Origin | None = None,
    output: str | None = None,
) -> Exported:
    """Calibrates, folds and quantizes a network and writes it as ONNX with QuantizeLinear and DequantizeLinear.

    The module may have weights of any origin and is left as it was; a TrainableNetwork is written as `deploy`
    returns it. Only the batch size is dynamic.

    Args:
        scheme: `w8a8`, `w4a8`, `w4` (float activations), `float32`, or a QuantScheme of 2 to 8 bits.
        calibration: Normalised float images [B, C, H, W] of the training split, at least `batch_size`.
        out: The file; written whole or not at all.
        protocol: `deploy` or `paper`; how a scheme given as text is quantized.
        steps: Additional post-training steps (`ghnq.quant.POST_TRAINING_STEPS`); None leaves those of the scheme.
        batch_size: Images in one forward pass of the calibration.
        pack_int4: Whether to store weights of up to 4 bits as INT4: half the file, but runtimes compute convolutions in
            float.
        int8_weights: Whether to store 8-bit weights as int8 instead of uint8 (`Storage`).
        origin: Where the network comes from, for the metadata of the file.
        output: Which of several tensors that the module returns is the logits, by key, attribute or position; None
            takes `logits`, or the only one that has the shape of logits.

    Raises:
        OutputError: It is not clear which result is the logits.
        SchemeError: Nothing to quantize, bits that no kernel takes, a constant activation.
        NotFiniteError: Weights, activations or logits that are NaN or infinite.
        DataError: Unusable calibration images, or fewer than one batch.
        ExportError: An operator that cannot be expressed, float64 parameters, or a shape that depends on the
            batch size beyond its first dimension.
        MissingExtraError: onnx is not installed.
    """
    file_format = OnnxFormat(Storage(pack_int4=pack_int4, int8_weights=int8_weights))
    return _export_module(module, scheme, file_format, calibration, out, protocol, steps, batch_size, origin, output)


def export_program(
    module: nn.Module,
    scheme: QuantScheme | str,
    *,
    calibration: Tensor,
    out: str | os.PathLike[str],
    protocol: str = "deploy",
    steps: Sequence[str] | None = None,
    batch_size: int = 256,
    origin: Origin | None = None,
    output: str | None = None,
) -> Exported:
    """Calibrates, folds and quantizes a network and writes it as a torch.export program (.pt2) with pt2e operators.

    The scales and integers are those of `export_onnx`; the file is for torch.compile on x86 and for ExecuTorch. The
    module may have weights of any origin and is left as it was; a TrainableNetwork is written as `deploy` returns it.
    Only the batch size is dynamic.

    Args:
        scheme: `w8a8`, `w4a8`, `w4` (float activations), `float32`, or a QuantScheme of 2 to 8 bits.
        calibration: Normalised float images [B, C, H, W] of the training split, at least `batch_size`.
        out: The file, which must end in .pt2; written whole or not at all.
        protocol: `deploy` or `paper`; how a scheme given as text is quantized.
        steps: Additional post-training steps (`ghnq.quant.POST_TRAINING_STEPS`); None leaves those of the scheme.
        batch_size: Images in one forward pass of the calibration.
        origin: Where the network comes from, for the metadata of the file.
        output: Which of several tensors that the module returns is the logits, by key, attribute or position; None
            takes `logits`, or the only one that has the shape of logits.

    Raises:
        OutputError: It is not clear which result is the logits.
        SchemeError: Nothing to quantize, bits that no kernel takes, a constant activation.
        NotFiniteError: Weights, activations or logits that are NaN or infinite.
        DataError: Unusable calibration images, or fewer than one batch.
        ExportError: An operator that cannot be expressed, float64 parameters, or a shape that depends on the
            batch size beyond its first dimension.
        GhnqError: The file name does not end in .pt2.
    """
    return _export_module(
        module, scheme, ProgramFormat(), calibration, out, protocol, steps, batch_size, origin, output
    )


def _export_module(
    module: nn.Module,
    scheme: QuantScheme | str,
    file_format: ExportFormat,
    calibration: Tensor,
    out: str | os.PathLike[str],
    protocol: str,
    steps: Sequence[str] | None,
    batch_size: int,
    origin: Origin | None,
    output: str | None,
) -> Exported:
    """Prepares a module and exports it; the arguments are those of `export_onnx` and `export_program`."""
    path = Path(out)
    file_format.check(path)
    changes = {} if steps is None else {"steps": tuple(steps)}
    parsed = QuantScheme.parse(scheme, protocol=protocol, **changes)
    if isinstance(calibration, Tensor) and calibration.dim() == 4 and len(calibration) < batch_size:
        raise DataError(
            f"{len(calibration)} calibration images are fewer than one batch of {batch_size}: "
            "give more images, or a smaller batch_size"
        )
    if isinstance(module, TrainableNetwork):
        prepared = module.prepared(calibration)
    else:
        prepared = prepare(module, calibration, batch_size=batch_size)
    take_output(prepared.network, prepared.images[:2], output=output)
    return export_prepared(prepared, parsed, file_format, out=path, origin=origin)


def export_prepared(
    prepared: Prepared, scheme: QuantScheme, file_format: ExportFormat, *, out: Path, origin: Origin | None = None
) -> Exported:
    """Folds and quantizes a prepared network and writes it; the path that every export takes.

    Raises:
        SchemeError, NotFiniteError, ExportError: As `export_onnx`.
    """
    check_float32(prepared.network)
    facts = Facts.of(scheme, len(prepared.images), tuple(prepared.images.shape[1:]), origin or Origin())
    simulation = simulate(prepared, scheme)
    check_simulation(simulation, batches(prepared.images, prepared.batch_size), facts.scheme)
    opset = file_format.write(simulation, facts, out)
    return Exported(out, out.stat().st_size, opset, facts, simulation)


def check_float32(module: nn.Module) -> None:
    """Checks that all floating-point parameters and buffers of a module are float32, or half precision, cast to it.

    Raises:
        ExportError: One is not; the message names it.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise ExportError(
                f"'{name}' of the network is {tensor.dtype}; only networks of float32 or half precision can be "
                "exported: call .float() on the network first"
            )
