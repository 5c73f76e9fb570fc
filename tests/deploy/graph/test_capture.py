"""Networks that cannot be exported: the error names the function and its module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ghnq.deploy import export_onnx, export_program
from ghnq.deploy.graph.capture import capture
from ghnq.errors import ExportError
from tests.deploy.nets import CALIBRATION, TEST, chain
from tests.torch_versions import needs_exported_fft


class Ending(nn.Module):
    """A linear layer, and a function of its logits [B, 10] and the images."""

    def __init__(self, end: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.end = nn.Linear(192, 10), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.head(x.flatten(1)), x)


def one_dimension() -> nn.Module:
    return nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 3, padding="same"), nn.Flatten(), nn.Linear(256, 10))


def three_dimensions() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(192, 10))


def transposed() -> nn.Module:
    return nn.Sequential(nn.Flatten(2), nn.ConvTranspose1d(3, 3, 1), nn.Flatten(), nn.Linear(192, 10))


DOUBLE = torch.ones(10, dtype=torch.float64)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Ending(lambda y, x: y[:, :, None]), r"results of shape \[batch, 10, 1\]; needed are logits"),
        (lambda: Ending(lambda y, x: y @ (y.t() @ y)), r"aten\.(matmul|mm).*goes over the images"),
        (nn.Identity, r"gives its images back"),
        (lambda: Ending(lambda y, x: y / y.shape[0]), r"aten\.div.*test_capture\.py.*number of images in the batch"),
        (lambda: Ending(lambda y, x: y * x.size(0)), r"aten\.mul.*number of images in the batch"),
        (lambda: Ending(lambda y, x: y - y.mean(0, keepdim=True)), r"aten\.mean.*goes over the images"),
        (lambda: Ending(lambda y, x: y.softmax(0)), r"aten\.softmax.*goes over the images"),
        (lambda: Ending(lambda y, x: torch.cat([y, y])), r"results of shape \[2\*batch, 10\]"),
        (lambda: Ending(lambda y, x: y @ y.t()), r"results of shape \[batch, batch\]"),
        (lambda: Ending(lambda y, x: y if len(x) == 2 else 2 * y), "certain numbers of images"),
        (lambda: Ending(lambda y, x: y + torch.ones(2, 1)), "certain numbers of images"),
        (lambda: Ending(lambda y, x: y.reshape(len(x), -1)), r"x\.shape\[0\] instead of len\(x\)"),
        (one_dimension, r"in module '1' is a 1-D convolution; only 2-D convolutions \(nn\.Conv2d, "),
        (three_dimensions, r"in module '1' is a 3-D convolution"),
        (transposed, r"in module '1' is a 1-D convolution; .*nn\.ConvTranspose2d\) can be exported"),
        (lambda: Ending(lambda y, x: torch.fft.fft2(x).real), r"aten\._fft_c2c.*test_capture\.py.*complex numbers"),
        pytest.param(
            lambda: Ending(lambda y, x: torch.fft.rfft(y).abs()),
            r"aten\._fft_r2c.*complex numbers",
            marks=needs_exported_fft,
        ),
        (lambda: Ending(lambda y, x: y * DOUBLE), r"aten\.mul.*gives torch\.float64.*float32"),
    ],
)
def test_functions_that_cannot_be_exported_are_named(build: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(ExportError, match=says):
        capture(build().eval(), CALIBRATION)


def test_errors_name_lines_of_the_users_code_only(tmp_path: Path) -> None:
    """Quantized layers are modules of this package; their lines would not help."""
    with pytest.raises(ExportError, match="1-D convolution") as caught:
        export_onnx(one_dimension(), "w8a8", calibration=CALIBRATION, out=tmp_path / "net.onnx", batch_size=64)
    assert ".py" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("constant", [torch.arange(10), torch.tensor(2.0, dtype=torch.float64), torch.ones(10) > 0])
def test_constants_of_other_types_are_promoted_as_in_torch(constant: Tensor) -> None:
    network = Ending(lambda y, x: y * constant).eval()
    graph = capture(network, CALIBRATION)
    assert {tensor.dtype for tensor in graph.buffers()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(graph(TEST), network(TEST))


@pytest.mark.parametrize("export", [export_onnx, export_program])
def test_float64_networks_are_not_exported(export: Callable[..., object], tmp_path: Path) -> None:
    dtype = torch.float64
    out = tmp_path / ("net.onnx" if export is export_onnx else "net.pt2")
    with pytest.raises(ExportError, match=rf"'0\.weight' of the network is {dtype}.*call \.float\(\)"):
        export(chain().to(dtype), "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    network = chain()
    network.register_buffer("table", torch.zeros(3, dtype=dtype))
    with pytest.raises(ExportError, match=rf"'table' of the network is {dtype}"):
        export(network, "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    assert list(tmp_path.iterdir()) == []
