"""Convolutions with named padding: the same results in torch, in the simulation, and in both files' runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ghnq.deploy import export_onnx, export_program, in_integers, load_program
from ghnq.deploy.graph.capture import capture
from ghnq.deploy.graph.supported_ops import aten
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import load_model, read_simulation
from ghnq.quant import prepare
from tests.deploy.nets import CALIBRATION, TEST
from tests.quant.nets import randomise
from tests.torch_versions import needs_program_files

# torch warns of kernels that need one zero more on one side than on the other.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def same() -> nn.Module:
    """Odd, even, dilated and grouped kernels; all but the last keep 8x8."""
    return randomise(nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, (4, 3), padding="same", groups=8), nn.ReLU(),
        nn.Conv2d(8, 8, 2, padding="same", dilation=(3, 2)), nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2, padding="valid"), nn.Flatten(), nn.Linear(54, 10),
    ))  # fmt: skip


def run(module: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(TEST)
    return result


def test_named_padding_becomes_numbers() -> None:
    network = same()
    graph = capture(network, CALIBRATION)
    convolutions = [node for node in graph.graph.nodes if node.target is aten.conv2d.default]
    # Where the sides differ, a node in front of the convolution pads.
    assert [node.args[4] for node in convolutions] == [[1, 1], [0, 0], [0, 0], [0, 0]]
    pads = [node.args[1] for node in graph.graph.nodes if node.target is aten.constant_pad_nd.default]
    assert pads == [[1, 1, 1, 2], [1, 1, 1, 2]]
    torch.testing.assert_close(run(graph), run(network), rtol=1e-5, atol=1e-5)


@needs_program_files
@pytest.mark.parametrize("scheme", ["float32", "w8a8", "w4a4"])
def test_files_compute_what_the_layers_compute(scheme: str, tmp_path: Path) -> None:
    layers_only = run(prepare(same(), CALIBRATION, batch_size=64).quantize(scheme))
    options = {"calibration": CALIBRATION, "batch_size": 64}
    exported = export_onnx(same(), scheme, out=tmp_path / "net.onnx", **options)  # type: ignore[arg-type]
    ours = run(in_integers(exported.simulation))
    # That node computes in float, so 4 bits are rounded twice, as in front of a sum.
    assert scheme == "w4a4" or (ours - layers_only).abs().le(1e-4).all(1).double().mean() >= 0.95

    read = read_simulation(load_model(exported.path), "net.onnx")
    torch.testing.assert_close(run(in_integers(read)), ours, rtol=0, atol=0)
    theirs = runtime.run(runtime.session(exported.path.read_bytes()), TEST)
    assert (ours - theirs).abs().le(1e-4).all(1).double().mean() >= 0.95
    program = export_program(same(), scheme, out=tmp_path / "net.pt2", **options)  # type: ignore[arg-type]
    loaded = run(load_program(program.path)[0].module())
    assert (ours - loaded).abs().le(1e-4).all(1).double().mean() >= 0.95
