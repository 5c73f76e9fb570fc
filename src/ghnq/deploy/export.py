"""From a module with weights to a file that integer kernels run: ONNX, or a torch.export program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ghnq.deploy.graph.finite import check_simulation
from ghnq.deploy.graph.simulation import simulate
from ghnq.deploy.metadata import Facts, Origin
from ghnq.deploy.onnx.writer import Storage, write_model
from ghnq.deploy.pt2e.program_file import save_program
from ghnq.deploy.pt2e.writer import to_program
from ghnq.errors import DataError, ExportError, GhnqError
from ghnq.files import atomic_path
from ghnq.optional_imports import import_optional
from ghnq.quant import QuantScheme, prepare
from ghnq.quant.calibrate import batches


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that was written: its path, its size, what it states, and the simulation it holds.

    opset: of ONNX; None for a torch.export program.
    """

    path: Path
    size: int
    opset: int | None
    facts: Facts
    simulation: fx.GraphModule


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
) -> Exported:
    """Calibrates, folds and quantizes a network and writes it as ONNX with QuantizeLinear and DequantizeLinear.

    The module may have weights of any origin and is left as it was. The batch is the only free size.

    Args:
        scheme: `w8a8`, `w4a8`, `w4` (float activations), `float32`, or a QuantScheme of 2 to 8 bits.
        calibration: normalised float images [B, C, H, W] of the training split, at least `batch_size`.
        out: the file; written whole or not at all.
        protocol: `deploy` or `paper`; how a scheme given as text is quantized.
        steps: post-training steps (names of `ghnq.quant.STEPS`) besides; None leaves those of the scheme.
        pack_int4: store weights of up to 4 bits as INT4: half the file, but runtimes compute convolutions in float.
        int8_weights: store 8-bit weights as int8 instead of uint8 (`Storage`).
        origin: what the file shall say of where the network comes from.

    Raises:
        SchemeError: nothing to quantize, bits no kernel takes, a constant activation.
        NotFiniteError: weights, activations or logits that are NaN or infinite.
        DataError: unusable calibration images, or fewer than one batch.
        ExportError: an op that cannot be expressed, another type than float32, or a shape beyond the batch that is not
            fixed.
        MissingExtraError: onnx is not installed.
    """
    import_optional("onnx")
    simulation, facts = _simulated(module, scheme, calibration, protocol, steps, batch_size, origin)
    storage = Storage(pack_int4=pack_int4, int8_weights=int8_weights)
    model = write_model(simulation, storage=storage, metadata=facts.to_properties())
    path = Path(out)
    _save(model, path)
    return Exported(path, path.stat().st_size, model.opset_import[0].version, facts, simulation)


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
) -> Exported:
    """Calibrates, folds and quantizes a network and writes it as a torch.export program (.pt2) in pt2e words.

    The same scales and integers as `export_onnx` gives; for torch.compile on x86 and for ExecuTorch. The module may
    have weights of any origin and is left as it was. The batch is the only free size.

    Args:
        scheme: `w8a8`, `w4a8`, `w4` (float activations), `float32`, or a QuantScheme of 2 to 8 bits.
        calibration: normalised float images [B, C, H, W] of the training split, at least `batch_size`.
        out: the file; written whole or not at all.
        protocol: `deploy` or `paper`; how a scheme given as text is quantized.
        steps: post-training steps (names of `ghnq.quant.STEPS`) besides; None leaves those of the scheme.
        origin: what the file shall say of where the network comes from.

    Raises:
        SchemeError: nothing to quantize, bits no kernel takes, a constant activation.
        NotFiniteError: weights, activations or logits that are NaN or infinite.
        DataError: unusable calibration images, or fewer than one batch.
        ExportError: an op that cannot be expressed, another type than float32, or a shape beyond the batch that is not
            fixed.
        GhnqError: a file name that does not end in .pt2, by which torch.export knows its files.
    """
    path = Path(out)
    if path.suffix.lower() != ".pt2":
        raise GhnqError(f"'{path}' ends in '{path.suffix}'; torch.export programs are written as .pt2")
    simulation, facts = _simulated(module, scheme, calibration, protocol, steps, batch_size, origin)
    save_program(to_program(simulation, facts.input_shape), facts, path)
    return Exported(path, path.stat().st_size, None, facts, simulation)


def _simulated(
    module: nn.Module,
    scheme: QuantScheme | str,
    calibration: Tensor,
    protocol: str,
    steps: Sequence[str] | None,
    batch_size: int,
    origin: Origin | None,
) -> tuple[fx.GraphModule, Facts]:
    """The simulation of a network, and what its file says; the same for every format."""
    changes = {} if steps is None else {"steps": tuple(steps)}
    scheme = QuantScheme.parse(scheme, protocol=protocol, **changes)
    if isinstance(calibration, Tensor) and calibration.dim() == 4 and len(calibration) < batch_size:
        raise DataError(
            f"{len(calibration)} calibration images are fewer than one batch of {batch_size}: "
            "give more images, or a smaller batch_size"
        )
    _check_types(module)
    prepared = prepare(module, calibration, batch_size=batch_size)
    facts = Facts.of(scheme, len(calibration), tuple(calibration.shape[1:]), origin or Origin())
    simulation = simulate(prepared, scheme)
    check_simulation(simulation, batches(prepared.images, batch_size), facts.scheme)
    return simulation, facts


def _check_types(module: nn.Module) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(
                f"'{name}' of the network is {tensor.dtype}; only float32 networks can be exported: "
                "call .float() on the network first"
            )


def _save(model: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
