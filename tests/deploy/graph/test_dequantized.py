"""The float32 counterpart of a quantized file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ghnq.deploy import export_onnx
from ghnq.deploy.cost.cost_profile import float_model
from ghnq.deploy.graph.capture import capture
from ghnq.deploy.graph.dequantized import in_floats
from ghnq.deploy.graph.tensor_shapes import with_shapes
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import load_model, read_simulation
from ghnq.quant import prepare
from tests.deploy.nets import CALIBRATION, NETS, TEST
from tests.quant.nets import randomise


def relu_6() -> nn.Module:
    """A network whose ReLU6 limits many values from above."""
    net = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(288, 10)))
    with torch.no_grad():
        net[0].weight.mul_(6)  # type: ignore[operator, union-attr]
    return net


@pytest.mark.parametrize("make", [*NETS.values(), relu_6], ids=[*NETS, "relu6"])
def test_computes_what_the_network_computes_with_the_weights_of_the_file(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    """The oracle is the exported network in torch, with its weights replaced by those of the file."""
    path = export_onnx(make(), "w8a8", calibration=CALIBRATION, out=tmp_path / "net.onnx", batch_size=64).path
    model = float_model(in_floats(with_shapes(read_simulation(load_model(path), path.name), (3, 8, 8), path.name)))
    assert {node.op_type for node in model.graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    found = runtime.run(runtime.session(model.SerializeToString()), TEST)
    prepared = prepare(make(), CALIBRATION, batch_size=64)
    network = prepared.quantize("w8")
    with torch.no_grad():
        expected = capture(network, CALIBRATION)(TEST)
    # Biases are quantized as well, and only where the input is.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01 * float(expected.abs().max()))
