"""From a module with weights to an ONNX file that integer kernels run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

from ghnq.deploy.extra import need
from ghnq.deploy.metadata import Facts, Origin
from ghnq.deploy.onnx_writer import Storage, write_model
from ghnq.deploy.simulation import simulate
from ghnq.errors import DataError
from ghnq.files import atomic_path
from ghnq.quant import QuantScheme, prepare


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that was written: its path, its size, its opset, what it states, and the simulation it holds."""

    path: Path
    size: int
    opset: int
    facts: Facts
    simulation: fx.GraphModule


def export_onnx(
    module: nn.Module,
    scheme: QuantScheme | str,
    *,
    calibration: Tensor,
    out: str | os.PathLike[str],
    protocol: str = "deploy",
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
        pack_int4: store weights of up to 4 bits as INT4: half the file, but runtimes compute convolutions in float.
        int8_weights: store 8-bit weights as int8 instead of uint8 (`Storage`).
        origin: what the file shall say of where the network comes from.

    Raises:
        SchemeError: nothing to quantize, bits no kernel takes, a constant activation, weights that are not finite.
        DataError: unusable calibration images, or fewer than one batch.
        ExportError: an op that cannot be expressed, or a shape beyond the batch that is not fixed.
        MissingExtraError: onnx is not installed.
    """
    need("onnx")
    scheme = QuantScheme.parse(scheme, protocol=protocol)
    if isinstance(calibration, Tensor) and calibration.dim() == 4 and len(calibration) < batch_size:
        raise DataError(
            f"{len(calibration)} calibration images are fewer than one batch of {batch_size}: "
            "give more images, or a smaller batch_size"
        )
    prepared = prepare(module, calibration, batch_size=batch_size)
    simulation = simulate(prepared, scheme)
    facts = Facts.of(scheme, len(calibration), tuple(calibration.shape[1:]), origin or Origin())
    storage = Storage(pack_int4=pack_int4, int8_weights=int8_weights)
    model = write_model(simulation, storage=storage, metadata=facts.to_properties())
    path = Path(out)
    _save(model, path)
    return Exported(path, path.stat().st_size, model.opset_import[0].version, facts, simulation)


def _save(model: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
