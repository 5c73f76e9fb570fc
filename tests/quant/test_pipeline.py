"""The whole way, from a float network to its simulation: integers, accuracy, isolation, errors."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ghnq.errors import DataError, SchemeError
from ghnq.quant import QuantLayer, QuantScheme, estimate_batch_norm, fold_batch_norm, prepare, quantize
from ghnq.quant.layers import QuantConv2d, QuantLinear
from tests.quant import oracle
from tests.quant.nets import Residual, images, network, randomise

IMAGES = images(128)
TEST = images(256, seed=2)


def error(module: nn.Module, net: nn.Module) -> float:
    """Mean squared difference of the logits beside their variance, on images that calibration has not seen."""
    with torch.no_grad():
        logits = net(TEST)
        return float((module(TEST) - logits).square().mean() / logits.var(dim=0).mean())


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """Float, with statistics of the calibration images."""
    return estimate_batch_norm(network(channels=16), IMAGES)


def quant_layers(module: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    return ((name, child) for name, child in module.named_modules() if isinstance(child, QuantLayer))


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4", "w2a2"])
def test_each_layer_equals_integer_arithmetic(net: nn.Module, scheme: str, protocol: str) -> None:
    simulated = quantize(net, scheme, calibration=IMAGES, protocol=protocol)
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


def test_more_bits_are_closer(net: nn.Module) -> None:
    errors = [
        error(quantize(net, scheme, calibration=IMAGES), net) for scheme in ("w16a16", "w8a8", "w6a6", "w4a4", "w2a2")
    ]
    assert errors == sorted(errors)
    assert errors[0] < 1e-6
    assert errors[1] < 5e-3
    assert errors[-1] > 0.1


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
def test_eight_bits_keep_the_answers(net: nn.Module, protocol: str) -> None:
    simulated = quantize(net, "w8a8", calibration=IMAGES, protocol=protocol)
    with torch.no_grad():
        agree = (simulated(TEST).argmax(dim=1) == net(TEST).argmax(dim=1)).float().mean()
    assert agree > (0.95 if protocol == "deploy" else 0.85)


def test_float32_estimates_folds_and_no_more(net: nn.Module) -> None:
    stale = randomise(copy.deepcopy(net))
    folded = quantize(stale, "float32", calibration=IMAGES)
    assert not list(quant_layers(folded))
    assert sum(isinstance(child, nn.BatchNorm2d) for child in folded.modules()) == 1
    with torch.no_grad():
        expected = estimate_batch_norm(stale, IMAGES)(TEST)
        torch.testing.assert_close(folded(TEST), expected, rtol=1e-5, atol=1e-5)
    unfolded = quantize(stale, QuantScheme.parse("float32", fold=False), calibration=IMAGES)
    assert isinstance(unfolded.get_submodule("1"), nn.BatchNorm2d)
    with torch.no_grad():
        assert torch.equal(unfolded(TEST), expected)


def test_weights_only(net: nn.Module) -> None:
    scheme = QuantScheme.parse("w4", reestimate=False)
    simulated = quantize(net, scheme, calibration=IMAGES)
    folded = fold_batch_norm(net, images=IMAGES[:2])
    for name, layer in quant_layers(simulated):
        float_layer = folded.get_submodule(name)
        expected = oracle.fake_quantize_rows(float_layer.weight.detach().numpy(), 4, symmetric=True)  # type: ignore[operator]
        np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(layer.bias, float_layer.bias)  # type: ignore[arg-type]
        assert layer.input_scale is None
        assert layer.bias_int is None
        x = torch.randn(3)
        assert layer.quantize_input(x) is x


def test_activation_ranges_are_those_of_the_weight_quantized_network(net: nn.Module) -> None:
    simulated = quantize(net, "w4a8", calibration=IMAGES)
    stem = simulated.get_submodule("0")
    assert isinstance(stem, QuantConv2d)
    scale, zero_point = oracle.qparams(IMAGES.numpy().min(), IMAGES.numpy().max(), 8, symmetric=False)
    assert (stem.input_scale, stem.input_zero_point) == (scale, zero_point)
    only_weights = copy.deepcopy(simulated)
    for _, layer in quant_layers(only_weights):
        layer.bits = layer.bits._replace(activation=None)
    seen: list[Tensor] = []
    only_weights.get_submodule("11").register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        only_weights(IMAGES)
    head = simulated.get_submodule("11")
    assert isinstance(head, QuantLinear)
    assert head.input_scale is not None
    # The biases were still float when the ranges were taken.
    assert float(head.input_scale) == pytest.approx(float(seen[0].max()) / 255, rel=0.02)


# Re-estimation -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["w4a8", "w3a8", "w4a4"])
@pytest.mark.parametrize("protocol", ["deploy", "paper"])
def test_reestimation_through_the_quantized_network_helps(net: nn.Module, scheme: str, protocol: str) -> None:
    prepared = prepare(net, IMAGES)
    errors = {
        again: error(prepared.quantize(QuantScheme.parse(scheme, protocol=protocol, reestimate=again)), net)
        for again in (True, False)
    }
    assert errors[True] < errors[False]


def test_reestimated_outputs_have_the_mean_and_width_the_norm_promises(net: nn.Module) -> None:
    """What a folded layer puts out on calibration images is beta and gamma again, although weights and inputs are quantized."""
    simulated = quantize(net, "w3a8", calibration=IMAGES)
    stale = quantize(net, QuantScheme.parse("w3a8", reestimate=False), calibration=IMAGES)
    for layer, norm in prepare(net, IMAGES).flow.pairs:
        batch_norm = net.get_submodule(norm)
        if batch_norm.bias is None:
            continue
        beta, gamma = batch_norm.bias.detach(), batch_norm.weight.detach()  # type: ignore[operator]
        away = []
        for module in (simulated, stale):
            seen: list[Tensor] = []
            handle = module.get_submodule(layer).register_forward_hook(
                lambda _, __, output, seen=seen: seen.append(output.clone())
            )
            with torch.no_grad():
                module(IMAGES)
            handle.remove()
            values = seen[0].transpose(0, 1).flatten(1)
            away.append(float((values.mean(1) - beta).abs().mean() + (values.std(1) - gamma.abs()).abs().mean()))
        assert away[0] < away[1]
        assert away[0] < 0.1


def test_quantizing_and_folding_commute_per_channel(net: nn.Module) -> None:
    """Folding the quantized weight gives the quantized folded weight: so re-estimation sees the very weights deployed."""
    unfolded = quantize(net, QuantScheme.parse("w4", fold=False), calibration=IMAGES)
    folded = quantize(net, "w4", calibration=IMAGES)
    for layer, norm in prepare(net, IMAGES).flow.pairs:
        batch_norm = unfolded.get_submodule(norm)
        gain = batch_norm.running_var.add(batch_norm.eps).rsqrt()  # type: ignore[union-attr,operator]
        gain = gain if batch_norm.weight is None else gain * batch_norm.weight  # type: ignore[operator]
        weight = unfolded.get_submodule(layer).weight
        folded_weight = folded.get_submodule(layer).weight
        torch.testing.assert_close(
            weight * gain.reshape(-1, *[1] * (weight.dim() - 1)), folded_weight, rtol=1e-4, atol=1e-6
        )  # type: ignore[operator,union-attr,arg-type]
    with torch.no_grad():
        torch.testing.assert_close(unfolded(TEST), folded(TEST), rtol=1e-3, atol=1e-3)


# One module, many schemes ------------------------------------------------------------------------------------------------------


def test_nothing_that_came_is_touched() -> None:
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


def test_schemes_in_any_order_give_the_same(net: nn.Module) -> None:
    prepared = prepare(net, IMAGES)
    first = prepared.quantize("w4a8").state_dict()
    prepared.quantize("w2a2", protocol="paper")
    again = prepared.quantize("w4a8").state_dict()
    alone = quantize(net, "w4a8", calibration=IMAGES).state_dict()
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, alone[name])


def test_overrides(net: nn.Module) -> None:
    simulated = quantize(net, "w2a4+0=w8a8+3.*=float32+11=w8", calibration=IMAGES)
    bits = {name: str(layer.bits) for name, layer in quant_layers(simulated)}
    assert bits == {"0": "w8a8", "4.conv": "w2a4", "5.conv1": "w2a4", "5.conv2": "w2a4", "8": "w2a4", "11": "w8"}
    assert isinstance(simulated.get_submodule("3.bn1"), nn.Identity)
    only = quantize(net, "float32+11=w8a8", calibration=IMAGES)
    assert [name for name, _ in quant_layers(only)] == ["11"]
    with pytest.raises(SchemeError, match=r"override '3.convv1' matches no layer.*did you mean '3.conv1'"):
        quantize(net, "w4a4+3.convv1=w8", calibration=IMAGES)


@pytest.mark.parametrize("estimator", ["percentile", "mse"])
def test_other_estimators_run_the_whole_way(net: nn.Module, estimator: str) -> None:
    scheme = QuantScheme.parse("w4a4", weight_range=estimator, activation_range=estimator)
    assert error(quantize(net, scheme, calibration=IMAGES), net) < 1
    if estimator == "mse":
        minmax = QuantScheme.parse("w4", reestimate=False)
        assert error(
            quantize(net, QuantScheme.parse("w4", reestimate=False, weight_range="mse"), calibration=IMAGES), net
        ) < error(quantize(net, minmax, calibration=IMAGES), net)


def test_gradients_reach_the_images(net: nn.Module) -> None:
    simulated = quantize(net, "w4a4", calibration=IMAGES)
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


# Biases ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 1e-12])
@pytest.mark.parametrize("protocol", ["deploy", "paper"])
def test_a_channel_of_next_to_nothing_keeps_its_bias(weight: float, protocol: str) -> None:
    """At input_scale * weight_scale such a bias needs more than 32 bits, or has no scale at all."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        net[0].weight[1 if protocol == "deploy" else slice(None)] = weight
        net[0].bias.copy_(torch.tensor([0.5, 0.7, -0.3, 0.1]))
    simulated = quantize(net, "w4a4", calibration=IMAGES, protocol=protocol)
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
    simulated = quantize(randomise(net), "w8a8", calibration=IMAGES)
    with torch.no_grad():
        y = simulated(TEST[:2])
        torch.testing.assert_close(y, net(TEST[:2]), rtol=1e-2, atol=1e-2)


# Bad input ---------------------------------------------------------------------------------------------------------------------


class Own(nn.Conv2d):
    """A convolution that standardises its weight, as forward passes of one's own may do."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight / self.weight.norm())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return self.inner(tokens, tokens, tokens)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("odd", "part"),
    [
        (Own(3, 4, 3), "conv2d in 'inner'"),
        (Attention(), "inner.inner"),
        (nn.ConvTranspose2d(3, 4, 3), "conv_transpose2d in 'inner'"),
        (parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), "conv2d in 'inner'"),
    ],
)
def test_weights_out_of_reach_are_told_and_do_not_disturb_float(odd: nn.Module, part: str) -> None:
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(3, 3, 1))
    net.add_module("inner", odd)
    with pytest.raises(SchemeError, match=part):
        quantize(net, "w8a8", calibration=images(4))
    with torch.no_grad():
        assert quantize(net, "float32", calibration=images(4))(images(2)).isfinite().all()


def test_layers_that_never_run_stay_float() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.aux(x) if self.training else self.main(x)  # type: ignore[no-any-return]

    simulated = quantize(Auxiliary(), "w8a8", calibration=images(4))
    assert [name for name, _ in quant_layers(simulated)] == ["main"]
    with pytest.raises(SchemeError, match="'aux' matches no layer"):
        quantize(Auxiliary(), "w8a8+aux=w4", calibration=images(4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    net = network()
    with torch.no_grad():
        net.get_submodule("3.conv2").weight[2, 0, 1, 1] = value  # type: ignore[index,operator]
    with pytest.raises(SchemeError, match=r"layer '3.conv2': 1 of 72 values of its weight"):
        quantize(net, "w8a8", calibration=IMAGES)


def test_activations_that_are_not_finite_are_named() -> None:
    class Explodes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0

    net = nn.Sequential(nn.Conv2d(3, 4, 1), Explodes(), nn.Conv2d(4, 4, 1))
    with pytest.raises(SchemeError, match="layer '2': its input"):
        quantize(net, "w8a8", calibration=IMAGES)
    net.append(nn.BatchNorm2d(4))
    with pytest.raises(SchemeError, match="layer '3'.*running_mean"):
        quantize(net, "w8a8", calibration=IMAGES)


@pytest.mark.parametrize(
    ("calibration", "part"),
    [
        (torch.zeros(4, 1, 16, 16), r"cannot run.*\(4, 1, 16, 16\)"),
        (torch.zeros(3, 16, 16), r"\[B, C, H, W\]"),
        (torch.zeros(0, 3, 16, 16), "at least 2"),
        (torch.full((4, 3, 16, 16), float("nan")), "NaN"),
        (torch.zeros(4, 3, 16, 16, dtype=torch.int64), "normalised floats"),
    ],
)
def test_bad_calibration_is_told(calibration: Tensor, part: str) -> None:
    with pytest.raises(DataError, match=part):
        quantize(network(), "w8a8", calibration=calibration)


def test_other_mistakes_are_told() -> None:
    with pytest.raises(SchemeError, match="did you mean 'paper'"):
        quantize(network(), "w8a8", calibration=IMAGES, protocol="papr")
    with pytest.raises(SchemeError, match="no convolution or linear layer"):
        quantize(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), "w8a8", calibration=IMAGES)
    assert quantize(nn.Sequential(nn.ReLU()), "float32", calibration=IMAGES)(TEST).shape == TEST.shape
    with pytest.raises(SchemeError, match="meta device"):
        quantize(network().to("meta"), "w8a8", calibration=IMAGES)
    with pytest.raises(SchemeError, match="'1' is a SyncBatchNorm"):
        quantize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4)), "w8a8", calibration=IMAGES)
    with pytest.raises(DataError, match="batch_size"):
        quantize(network(), "w8a8", calibration=IMAGES, batch_size=0)
