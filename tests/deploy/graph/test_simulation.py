"""The simulation against integers of numpy and against ONNX Runtime: bit for bit where sums are integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ghnq.deploy import in_integers, simulate
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.supported_ops import aten
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import load_model, read_simulation
from ghnq.quant import prepare
from tests.deploy.conftest import Exports
from tests.deploy.nets import CALIBRATION, NETS, TEST, chain
from tests.quant.nets import quant_layers
from tests.quant.oracle import integer_conv

SCHEMES = ("w8a8", "w4a4", "w3a5")


def run(module: nn.Module, images: Tensor = TEST) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(images)
    return result


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4"])
def test_equals_integer_arithmetic_in_numpy(scheme: str) -> None:
    prepared = prepare(chain(), CALIBRATION)
    first, second, last = (layer for _, layer in quant_layers(prepared.quantize(scheme)))
    largest = 2 ** (first.bits.activation or 0) - 1

    def scales(layer: nn.Module) -> tuple[np.float32, int, np.ndarray]:
        step = layer.input_scale.numpy()
        return np.float32(step), int(layer.input_zero_point), np.float32(step * layer.weight_scale.numpy())

    (s1, z1, m1), (s2, z2, m2), (s3, z3, m3) = (scales(layer) for layer in (first, second, last))
    q = np.clip(np.rint(TEST.numpy() / s1) + z1, 0, largest).astype(np.int64)
    for layer, stride, groups, zero, factor, next_zero in (
        (first, 2, 1, z1, m1 / s2, z2), (second, 1, 2, z2, m2 / s3, z3),
    ):  # fmt: skip
        total = integer_conv(q - zero, layer.weight_int.numpy().astype(np.int64), stride, 1, groups)
        total += layer.bias_int.numpy()[None, :, None, None]
        steps = np.rint(total.astype(np.float32) * factor[None, :, None, None].astype(np.float32))
        q = np.clip(steps + next_zero, 0, largest).astype(np.int64)
    total = (q - z3).reshape(len(q), -1) @ last.weight_int.numpy().astype(np.int64).T + last.bias_int.numpy()
    expected = total.astype(np.float32) * m3

    ours = run(in_integers(simulate(prepared, scheme)))

    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETS)
def test_onnx_runtime_gives_the_same_bits_with_integer_kernels(name: str, scheme: str, exports: Exports) -> None:
    exported = exports(name, scheme)
    data = exported.path.read_bytes()
    found = runtime.kernels(data)
    theirs = runtime.run(runtime.session(data), TEST)

    ours = run(in_integers(exported.simulation))

    assert found.float_layers == ()
    assert found.integer.get("QLinearConv", 0) >= 2
    # Float operators between the kernels may round otherwise: the sigmoid is a table, hard swish has no kernel.
    share = (ours - theirs).abs().le(1e-5 * ours.std()).all(1).double().mean()
    assert share >= (1 if name in ("chain", "mixed") else 0.9)
    assert (ours.argmax(1) == theirs.argmax(1)).double().mean() >= 0.98


@pytest.mark.parametrize("name", NETS)
def test_without_optimisation_the_file_computes_the_float_simulation(name: str, exports: Exports) -> None:
    exported = exports(name, "w4a4")
    theirs = runtime.run(runtime.session(exported.path.read_bytes(), optimise=False), TEST)
    ours = run(exported.simulation)
    assert (ours - theirs).abs().le(1e-4 * ours.std()).all(1).double().mean() >= 0.95


@pytest.mark.parametrize("scheme", ["float32", "w4", "w8a8", "w4a4"])
@pytest.mark.parametrize("name", NETS)
def test_the_simulation_is_read_back_bit_for_bit(name: str, scheme: str, exports: Exports) -> None:
    exported = exports(name, scheme)
    read = read_simulation(load_model(exported.path), "net.onnx")
    torch.testing.assert_close(run(read), run(exported.simulation), rtol=0, atol=0)
    torch.testing.assert_close(run(in_integers(read)), run(in_integers(exported.simulation)), rtol=0, atol=0)


@pytest.mark.parametrize("scheme", ["float32", "w4"])
@pytest.mark.parametrize("name", NETS)
def test_float_activations_are_not_quantized(name: str, scheme: str, exports: Exports) -> None:
    prepared = prepare(NETS[name](), CALIBRATION)
    expected = run(prepared.quantize(scheme))
    exported = exports(name, scheme)
    assert not any(node.target is quantize for node in exported.simulation.graph.nodes)
    torch.testing.assert_close(run(exported.simulation), expected, rtol=1e-5, atol=1e-5)
    theirs = runtime.run(runtime.session(exported.path.read_bytes()), TEST)
    torch.testing.assert_close(theirs, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheme", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", NETS)
def test_weights_biases_and_input_grids_are_those_of_the_layers(name: str, scheme: str, exports: Exports) -> None:
    simulation = exports(name, scheme).simulation
    layers = dict(quant_layers(prepare(NETS[name](), CALIBRATION, batch_size=64).quantize(scheme)))
    seen = set()
    for node in simulation.graph.nodes:
        if node.target not in (aten.conv2d.default, aten.linear.default):
            continue
        layer = layers[node.meta["layer"]]
        seen.add(node.meta["layer"])
        x, weight, bias = node.args[:3]
        assert x.target is dequantize
        assert torch.equal(getattr(simulation, weight.args[0].target).int(), layer.weight_int)
        assert torch.equal(getattr(simulation, x.args[1].target), layer.input_scale)
        assert torch.equal(getattr(simulation, x.args[2].target), layer.input_zero_point)
        if bias is not None:
            assert torch.equal(getattr(simulation, bias.args[0].target), layer.bias_int)
    assert seen == layers.keys()


def test_a_chain_is_the_layer_only_simulation(exports: Exports) -> None:
    prepared = prepare(chain(), CALIBRATION, batch_size=64)
    for scheme in SCHEMES:
        layers_only, deployed = run(prepared.quantize(scheme)), run(exports("chain", scheme).simulation)
        assert (layers_only - deployed).abs().le(1e-4).all(1).double().mean() >= 0.95


def test_sums_that_could_exceed_float32_are_computed_in_float64() -> None:
    net = nn.Sequential(nn.Conv2d(3, 80, 1), nn.ReLU(), nn.Conv2d(80, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    net[2].weight.data.fill_(0.1)  # 720 weights of 127 steps, times 255 steps of the input, exceed 2^24
    simulation = in_integers(simulate(prepare(net.eval(), CALIBRATION), "w8a8"))
    types = [tensor.dtype for name, tensor in simulation.named_buffers() if "_exact" in name]
    assert types == [torch.float32, torch.float64, torch.float32]
    assert run(simulation).dtype == torch.float32
