"""Networks that compute NaN or infinity are neither exported nor compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.export import ExportedProgram

from ghnq.data import ImageDataset, Images
from ghnq.deploy import Exported, export_onnx, export_program, verify, verify_program
from ghnq.deploy.onnx import runtime
from ghnq.errors import ExportError, NotFiniteError
from tests.deploy.nets import CALIBRATION, chain
from tests.torch_versions import needs_program_files

Export = Callable[..., Exported]


class Scaled(nn.Module):
    """Multiplies logits by constants that are not buffers, so that only running the network shows their values."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.layers, self.factors = chain(), factors

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        for factor in self.factors:
            y = y * torch.tensor(factor)
        return y


@pytest.mark.parametrize("export", [export_onnx, export_program])
@pytest.mark.parametrize("scheme", ["w4", "float32", "w8a8"])
@pytest.mark.parametrize("factors", [(torch.nan,), (torch.inf,), (1e30, 1e30)])
def test_a_network_that_computes_nan_or_infinity_is_not_exported(
    export: Export, scheme: str, factors: tuple[float, ...], tmp_path: Path
) -> None:
    out = tmp_path / ("net.onnx" if export is export_onnx else "net.pt2")
    says = rf"scheme {scheme} .*for 32 of 32 calibration images, first in aten\.mul.*test_finite\.py.*overflow float32"
    with pytest.raises(NotFiniteError, match=says):
        export(Scaled(*factors), scheme, calibration=CALIBRATION, out=out, batch_size=32)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    """Noise with arbitrary labels."""
    pixels = torch.randint(0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(pixels, torch.arange(20) % 10)
    return ImageDataset.build("noise", images, images, tuple("abcdefghij"), flip=False)


def test_verify_does_not_count_nan_as_agreement(dataset: ImageDataset, tmp_path: Path) -> None:
    exported = export_onnx(chain(), "w4", calibration=CALIBRATION, out=tmp_path / "net.onnx", batch_size=64)
    model = onnx.load(exported.path)
    for tensor in model.graph.initializer:
        if tensor.name == "5_bias":
            bias = numpy_helper.to_array(tensor).copy()
            bias[3] = torch.nan
            tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    onnx.save(model, exported.path)
    with pytest.raises(ExportError, match=r"net\.onnx': the simulation gives NaN or infinite logits for 20 of 20"):
        verify(exported.path, dataset)


@needs_program_files
def test_verify_names_the_side_that_computes_infinity(
    dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(logits: Tensor) -> Tensor:
        return logits.index_fill(0, torch.tensor([1, 4]), torch.inf)

    options = {"calibration": CALIBRATION, "batch_size": 64}
    file = export_onnx(chain(), "w8a8", out=tmp_path / "net.onnx", **options).path  # type: ignore[arg-type]
    honest = runtime.run
    monkeypatch.setattr(runtime, "run", lambda session, images: broken(honest(session, images)))
    with pytest.raises(ExportError, match=r"net\.onnx': ONNX Runtime gives NaN or infinite logits for 2 of 20 images"):
        verify(file, dataset)

    program = export_program(chain(), "w8a8", out=tmp_path / "net.pt2", **options).path  # type: ignore[arg-type]
    load = ExportedProgram.module
    monkeypatch.setattr(ExportedProgram, "module", lambda program: lambda images: broken(load(program)(images)))
    with pytest.raises(ExportError, match=r"net\.pt2': the program gives NaN or infinite logits for 2 of 20 images"):
        verify_program(program, dataset)
