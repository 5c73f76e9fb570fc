"""From a float network to its simulation: integers, accuracy, unchanged arguments, biases."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ghnq.errors import SchemeError
from ghnq.quant import QuantScheme, estimate_batch_norm, fold_batch_norm, prepare, quantize
from ghnq.quant.quantized_layers import QuantConv2d
from ghnq.torch_compat import BatchNorm
from tests.quant import oracle
from tests.quant.nets import CALIBRATION, TEST, Residual, error, images, network, quant_layers, randomise


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4", "w2a2"])
def test_each_layer_equals_integer_arithmetic(net: nn.Module, scheme: str, protocol: str) -> None:
    simulated = quantize(net, scheme, calibration=CALIBRATION, protocol=protocol)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in quant_layers(simulated):
        layer.register_forward_hook(lambda _, args, output, name=name: seen.update({name: (args[0], output.clone())}))
    with torch.no_grad():
        simulated(TEST[:3])
    assert len(seen) == 8
    for name, layer in quant_layers(simulated):
        x, y = seen[name]
        assert layer.input_scale is not None
        assert layer.input_zero_point is not None
        assert layer.bias_int is not None
        assert layer.bits.activation is not None
        assert layer.bits.weight is not None
        s_in, z_in = layer.input_scale.numpy(), int(layer.input_zero_point)
        q_x = oracle.quantize(x.numpy(), s_in, z_in, layer.bits.activation, symmetric=False) - z_in
        q_w = layer.weight_int.long()
        limits = oracle.limits(layer.bits.weight, symmetric=protocol == "deploy")
        assert limits[0] <= int(q_w.min())
        assert int(q_w.max()) <= limits[1]
        q_w = (q_w - layer.weight_zero_point.reshape(-1, *[1] * (q_w.dim() - 1))).numpy()
        if isinstance(layer, QuantConv2d):
            sums = oracle.integer_conv(q_x, q_w, layer.stride[0], int(layer.padding[0]), layer.groups)
        else:
            sums = q_x @ q_w.T
        shape = (1, -1) + (1,) * (sums.ndim - 2)
        sums = sums + layer.bias_int.numpy().astype(np.int64).reshape(shape)
        assert np.abs(sums).max() < 2**31
        steps = s_in.astype(np.float64) * layer.weight_scale.numpy().astype(np.float64).reshape(
            shape if protocol == "deploy" else ()
        )
        np.testing.assert_allclose(y.numpy(), sums * steps, rtol=1e-5, atol=1e-5 * np.abs(y.numpy()).max())
        # In steps of the accumulator the simulation hits integers.
        fraction = y.numpy() / steps - np.rint(y.numpy() / steps)
        assert np.abs(fraction).max() < 1e-6 * max(1e3, np.abs(sums).max())


def test_the_error_decreases_with_the_bit_width(net: nn.Module) -> None:
    errors = [
        error(quantize(net, scheme, calibration=CALIBRATION), net)
        for scheme in ("w16a16", "w8a8", "w6a6", "w4a4", "w2a2")
    ]
    assert errors == sorted(errors)
    fine = quantize(net, "w16a16", calibration=torch.cat([CALIBRATION, TEST]), batch_size=512)
    exact = quantize(net, "float32", calibration=torch.cat([CALIBRATION, TEST]), batch_size=512)
    assert error(fine, exact) < 1e-6  # no test image leaves the ranges now
    assert errors[1] < 5e-3
    assert errors[-1] > 0.1


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
def test_eight_bits_keep_the_predicted_classes(net: nn.Module, protocol: str) -> None:
    simulated = quantize(net, "w8a8", calibration=CALIBRATION, protocol=protocol)
    with torch.no_grad():
        agree = (simulated(TEST).argmax(dim=1) == net(TEST).argmax(dim=1)).float().mean()
    assert agree > (0.93 if protocol == "deploy" else 0.85)


def test_float32_only_estimates_and_folds(net: nn.Module) -> None:
    stale = randomise(copy.deepcopy(net))
    folded = quantize(stale, "float32", calibration=CALIBRATION)
    assert not list(quant_layers(folded))
    assert sum(isinstance(child, nn.BatchNorm2d) for child in folded.modules()) == 1
    with torch.no_grad():
        expected = estimate_batch_norm(stale, CALIBRATION)(TEST)
        torch.testing.assert_close(folded(TEST), expected, rtol=1e-5, atol=1e-5)
    unfolded = quantize(stale, QuantScheme.parse("float32", fold=False), calibration=CALIBRATION)
    assert isinstance(unfolded.get_submodule("1"), nn.BatchNorm2d)
    with torch.no_grad():
        assert torch.equal(unfolded(TEST), expected)


def test_weights_only(net: nn.Module) -> None:
    scheme = QuantScheme.parse("w4", reestimate=False)
    simulated = quantize(net, scheme, calibration=CALIBRATION)
    folded = fold_batch_norm(net, images=CALIBRATION[:2])
    for name, layer in quant_layers(simulated):
        float_layer = folded.get_submodule(name)
        expected = oracle.fake_quantize_rows(float_layer.weight.detach().numpy(), 4, symmetric=True)
        np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(layer.bias, float_layer.bias)
        assert layer.input_scale is None
        assert layer.bias_int is None
        x = torch.randn(3)
        assert layer.quantize_input(x) is x


def test_activation_ranges_are_those_of_the_weight_quantized_network(net: nn.Module) -> None:
    """Activations and biases are in float while the ranges are estimated."""
    prepared = prepare(net, CALIBRATION)
    simulated = prepared.quantize(QuantScheme.parse("w4a3", reestimate=False))
    only_weights = prepared.quantize(QuantScheme.parse("w4", reestimate=False))
    seen: dict[str, Tensor] = {}
    for name, layer in quant_layers(only_weights):
        layer.register_forward_hook(lambda _, args, __, name=name: seen.update({name: args[0].clone()}))
    with torch.no_grad():
        only_weights(CALIBRATION)
    assert len(seen) == 8
    for name, layer in quant_layers(simulated):
        x = seen[name].numpy()
        scale, zero_point = oracle.qparams(x.min(), x.max(), 3, symmetric=False)
        assert layer.input_scale is not None
        assert float(layer.input_scale) == pytest.approx(float(scale), rel=1e-5)
        assert layer.input_zero_point == zero_point


# One module, many schemes ----------------------------------------


def test_arguments_are_not_changed() -> None:
    net = network().train()
    net[0].eval()
    before = copy.deepcopy(net.state_dict())
    modes = [child.training for child in net.modules()]
    calibration = images(16)
    kept = calibration.clone()
    prepared = prepare(net, calibration, batch_size=8)
    prepared_state = copy.deepcopy(prepared.network.state_dict())
    first = prepared.quantize("w4a4", protocol="paper")
    second = prepared.quantize("w4a4")
    with torch.no_grad():
        second(calibration)
    assert torch.equal(calibration, kept)
    for module, state in ((net, before), (prepared.network, prepared_state)):
        assert list(module.state_dict()) == list(state)
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert [child.training for child in net.modules()] == modes
    for module in (net, prepared.network, first, second):
        assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    storage = [{p.data_ptr() for p in module.parameters()} for module in (net, prepared.network, first, second)]
    assert sum(map(len, storage)) == len(set.union(*storage))
    assert not any(child.training for module in (first, second) for child in module.modules())


def test_the_order_of_schemes_does_not_matter(net: nn.Module) -> None:
    prepared = prepare(net, CALIBRATION)
    first = prepared.quantize("w4a8").state_dict()
    prepared.quantize("w2a2", protocol="paper")
    again = prepared.quantize("w4a8").state_dict()
    alone = quantize(net, "w4a8", calibration=CALIBRATION).state_dict()
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, alone[name])


def test_overrides(net: nn.Module) -> None:
    simulated = quantize(net, "w2a4+0=w8a8+3.*=float32+11=w8", calibration=CALIBRATION)
    bits = {name: str(layer.bits) for name, layer in quant_layers(simulated)}
    assert bits == {"0": "w8a8", "4.conv": "w2a4", "5.conv1": "w2a4", "5.conv2": "w2a4", "8": "w2a4", "11": "w8"}
    assert isinstance(simulated.get_submodule("3.bn1"), nn.Identity)
    only = quantize(net, "float32+11=w8a8", calibration=CALIBRATION)
    assert [name for name, _ in quant_layers(only)] == ["11"]
    with pytest.raises(SchemeError, match=r"override '3.convv1' matches no layer.*did you mean '3.conv1'"):
        quantize(net, "w4a4+3.convv1=w8", calibration=CALIBRATION)


@pytest.mark.parametrize("estimator", ["percentile", "mse"])
def test_other_range_estimators(net: nn.Module, estimator: str) -> None:
    scheme = QuantScheme.parse("w4a4", weight_range=estimator, activation_range=estimator)
    assert error(quantize(net, scheme, calibration=CALIBRATION), net) < 1
    if estimator == "mse":
        minmax = QuantScheme.parse("w4", reestimate=False)
        assert error(
            quantize(net, QuantScheme.parse("w4", reestimate=False, weight_range="mse"), calibration=CALIBRATION), net
        ) < error(quantize(net, minmax, calibration=CALIBRATION), net)


def test_gradients_reach_the_images(net: nn.Module) -> None:
    simulated = quantize(net, "w4a4", calibration=CALIBRATION)
    x = TEST[:4].clone().requires_grad_()
    simulated(x).square().sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert float(x.grad.abs().sum()) > 0


def test_double_precision_and_shared_layers() -> None:
    block = Residual(4)
    net = randomise(
        nn.Sequential(nn.Conv2d(3, 4, 1), block, block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    ).double()
    simulated = quantize(net, "w8a8", calibration=images(16))
    assert simulated.get_submodule("1") is simulated.get_submodule("2")
    assert [name for name, _ in quant_layers(simulated)] == ["0", "1.conv1", "1.conv2", "5"]
    assert isinstance(simulated.get_submodule("1.bn1"), nn.BatchNorm2d)
    with torch.no_grad():
        y = simulated(images(4).double())
    assert y.dtype == torch.float64
    with torch.no_grad():
        torch.testing.assert_close(y, estimate_batch_norm(net, images(16))(images(4).double()), rtol=0.1, atol=0.1)


# Biases ----------------------------------------


@pytest.mark.parametrize("weight", [0.0, 1e-12])
@pytest.mark.parametrize("protocol", ["deploy", "paper"])
def test_a_channel_with_negligible_weights_keeps_its_bias(weight: float, protocol: str) -> None:
    """At input_scale * weight_scale such a bias exceeds 32 bits, or the weight has no scale."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        net[0].weight[1 if protocol == "deploy" else slice(None)] = weight
        net[0].bias.copy_(torch.tensor([0.5, 0.7, -0.3, 0.1]))
    simulated = quantize(net, "w4a4", calibration=CALIBRATION, protocol=protocol)
    layer = simulated.get_submodule("0")
    assert isinstance(layer, QuantConv2d)
    assert layer.bias is not None
    assert layer.bias_int is not None
    where = 1 if protocol == "deploy" else slice(None)
    torch.testing.assert_close(layer.bias[where], net[0].bias[where], rtol=1e-6, atol=0)
    assert int(layer.bias_int.abs().max()) <= 2**30 + 2**8
    assert bool(layer.weight_scale.isfinite().all())
    assert layer.weight_int.abs().max() <= 15


def test_constant_activations_do_not_divide_by_zero() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Hardtanh(5, 6), nn.Conv2d(4, 4, 3), nn.Threshold(1e9, 0), nn.Conv2d(4, 2, 1)
    )
    simulated = quantize(randomise(net), "w8a8", calibration=CALIBRATION)
    with torch.no_grad():
        y = simulated(TEST[:2])
        torch.testing.assert_close(y, net(TEST[:2]), rtol=1e-2, atol=1e-2)


def test_statistics_of_a_trained_network_are_kept_where_that_is_asked_for() -> None:
    module = network(channels=8)  # with statistics of its own
    module[1] = nn.BatchNorm2d(8, track_running_stats=False)
    kept = prepare(module, CALIBRATION, keep_statistics=True).network
    estimated = prepare(module, CALIBRATION).network
    for name, norm in kept.named_modules():
        if isinstance(norm, BatchNorm):
            own = module.get_submodule(name)
            if name == "1":
                assert torch.equal(norm.running_var, estimated.get_submodule(name).running_var)
            else:
                assert torch.equal(norm.running_mean, own.running_mean)
                assert torch.equal(norm.running_var, own.running_var)
                assert not torch.equal(norm.running_var, estimated.get_submodule(name).running_var)


def test_kept_statistics_are_those_of_the_scheme_that_a_network_was_trained_through() -> None:
    module = network(channels=8)
    w4a8 = QuantScheme.parse("w4a8")
    trained = prepare(module, CALIBRATION, keep_statistics=True, trained_through="w4a8")
    as_they_are = prepare(module, CALIBRATION, keep_statistics=True).quantize(replace(w4a8, reestimate=False))
    assert torch.equal(trained.quantize(w4a8)(TEST), as_they_are(TEST))


def test_statistics_of_training_through_quantization_are_changed_for_other_schemes_and_for_float() -> None:
    module = estimate_batch_norm(network(channels=8), CALIBRATION)
    quantized = prepare(module, CALIBRATION)
    w2a8 = QuantScheme.parse("w2a8")
    # A network whose statistics are those that it has at w2a8 on the calibration images.
    trained = copy.deepcopy(module)
    state = quantized.quantize(replace(w2a8, fold=False)).state_dict()
    trained.load_state_dict({k: v for k, v in state.items() if "running" in k}, strict=False)
    prepared = prepare(trained, CALIBRATION, keep_statistics=True, trained_through="w2a8")
    with torch.no_grad():
        for scheme in ("float32", "w8a8"):
            expected = quantized.quantize(scheme)(CALIBRATION)
            torch.testing.assert_close(prepared.quantize(scheme)(CALIBRATION), expected, rtol=0.05, atol=0.05)


def test_kept_statistics_that_are_those_of_the_images_are_estimated_again_as_always() -> None:
    module = estimate_batch_norm(network(channels=8).double(), CALIBRATION.double())
    kept = prepare(module, CALIBRATION.double(), keep_statistics=True).quantize("w3a6")
    estimated = prepare(module, CALIBRATION.double()).quantize("w3a6")
    with torch.no_grad():
        torch.testing.assert_close(kept(TEST.double()), estimated(TEST.double()), rtol=1e-6, atol=1e-6)


def test_statistics_of_training_on_other_images_stay_where_quantization_changes_nothing() -> None:
    module = network(channels=8)  # with statistics that are far from those of the images
    quantized = prepare(module, CALIBRATION, keep_statistics=True).quantize("w16a16")
    with torch.no_grad():
        torch.testing.assert_close(quantized(CALIBRATION), module(CALIBRATION), rtol=0.02, atol=0.02)
