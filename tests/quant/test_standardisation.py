"""Standardisation of convolutions: which layers, statistics, exactness after folding, and the default."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ghnq
from ghnq.errors import GhnqWarning, NotFiniteError
from ghnq.quant import QuantScheme, prepare, quantize
from ghnq.quant.standardisation import (
    attach_norms,
    has_predicted_weights,
    mark_predicted,
    unnormalised_layers,
)

IMAGES = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Convolutions: plain, residual, depthwise before pointwise, running twice, before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)  # straight into the next one
        self.pointwise = nn.Conv2d(8, 6, 1)
        self.shared = nn.Conv2d(6, 6, 1)
        self.before_norm = nn.Conv2d(6, 10, 3)
        self.norm = nn.BatchNorm2d(10)
        self.before_group_norm = nn.Conv2d(10, 8, 3)
        self.group_norm = nn.GroupNorm(2, 8)
        self.last = nn.Conv2d(8, 5, 1)
        self.classifier = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.plain(x), inplace=True)
        x = F.relu(x + self.branch(x))
        x = self.pointwise(self.depthwise(x))
        x = F.relu(self.shared(self.shared(F.relu(x))))
        x = self.norm(F.relu(self.before_norm(x)) * 2)
        x = F.max_pool2d(F.relu(x), 2)
        x = F.relu(self.group_norm(self.before_group_norm(x)))
        logits: Tensor = self.classifier(F.relu(self.last(x)).mean((2, 3)))
        return logits


@pytest.fixture
def network() -> Network:
    torch.manual_seed(1)
    network = Network().eval()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.mul_(1 + number)  # far from any scale that works
    return network


def test_layers_whose_output_reaches_no_norm(network: Network) -> None:
    assert unnormalised_layers(network, IMAGES[:2]) == ["plain", "branch", "pointwise", "last"]


def test_layers_are_found_on_meta(network: Network) -> None:
    meta = copy.deepcopy(network).to("meta")
    assert unnormalised_layers(meta, IMAGES[:2].to("meta")) == ["plain", "branch", "pointwise", "last"]


def test_the_network_is_not_changed(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = network(IMAGES)
    unnormalised_layers(network, IMAGES[:2])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network(IMAGES), expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("function", [F.layer_norm, F.instance_norm, F.group_norm])
def test_norms_that_are_functions(function: object) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv(x))
            if function is F.layer_norm:
                return F.layer_norm(x, x.shape[1:])
            return F.instance_norm(x) if function is F.instance_norm else F.group_norm(x, 2)

    assert unnormalised_layers(Functional(), IMAGES[:2]) == []


def test_outputs_have_mean_zero_and_variance_one(network: Network) -> None:
    deployed = prepare(network, IMAGES, standardise=True).quantize("float32")
    outputs: dict[str, Tensor] = {}
    for name, layer in deployed.named_modules():
        layer.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output.clone()))
    with torch.no_grad():
        deployed(IMAGES)
    for name in ("plain", "branch", "pointwise", "last"):
        values = outputs[name].double()
        torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(values.shape[1]).double(), atol=1e-3, rtol=0)
        torch.testing.assert_close(values.var((0, 2, 3)), torch.ones(values.shape[1]).double(), atol=1e-3, rtol=0)
    assert outputs["shared"].std() > 0


def test_equals_standardising_layer_by_layer(network: Network) -> None:
    """The oracle: one convolution after the other, in float64, each folded before the next one.

    As in any batch norm, the output is divided by the biased deviation, and the running variance is unbiased.
    """
    network = network.double()
    images = IMAGES.double()
    expected = copy.deepcopy(network)
    for norm in (expected.norm,):
        norm.train()
        norm.momentum = 1.0
    kept: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in ("plain", "branch", "pointwise", "last"):
            layer = expected.get_submodule(name)
            seen: list[Tensor] = []
            handle = layer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output.clone()))
            expected(images)
            handle.remove()
            variance, mean = torch.var_mean(seen[0], (0, 2, 3), correction=0)
            gain = (variance + 1e-5).rsqrt()
            kept[name] = (seen[0].var((0, 2, 3)) + 1e-5).rsqrt() / gain
            bias = 0 if layer.bias is None else layer.bias
            layer.weight = nn.Parameter(layer.weight * gain[:, None, None, None])
            layer.bias = nn.Parameter((bias - mean) * gain)
        expected(images)
        expected.eval()
        for name, correction in kept.items():
            layer = expected.get_submodule(name)
            layer.weight.mul_(correction[:, None, None, None])
            layer.bias.mul_(correction)
        found = prepare(network, images, standardise=True).quantize("float32")
        torch.testing.assert_close(found(images), expected(images), rtol=1e-9, atol=1e-9)


def test_folding_is_exact_and_removes_norms_and_hooks(network: Network) -> None:
    prepared = prepare(network, IMAGES, standardise=True)
    with torch.no_grad():
        expected = prepared.network(IMAGES)
        folded = prepared.quantize("float32")
        torch.testing.assert_close(folded(IMAGES), expected, rtol=1e-4, atol=1e-5)
    names = {name for name, _ in network.named_modules()}
    assert {name for name, _ in folded.named_modules()} == names
    assert not any(module._forward_hooks for module in folded.modules())
    assert set(folded.state_dict()) - set(network.state_dict()) == {"branch.bias"}


def test_without_folding_the_norms_remain(network: Network) -> None:
    prepared = prepare(network, IMAGES, standardise=True)
    scheme = QuantScheme.parse("w8a8", fold=False)
    with torch.no_grad():
        unfolded, folded = prepared.quantize(scheme), prepared.quantize("w8a8")
        assert "plain.standardisation" in dict(unfolded.named_modules())
        # Both are within the rounding of 8 bits of the network in float.
        expected = prepared.network(IMAGES)
        for found in (unfolded(IMAGES), folded(IMAGES)):
            assert (found - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("steps", [(), ("equalize",), ("correct_bias",), ("search_weights", "search_activations")])
def test_quantized_networks_stay_near(network: Network, steps: tuple[str, ...]) -> None:
    prepared = prepare(network, IMAGES, standardise=True)
    with torch.no_grad():
        expected = prepared.network(IMAGES)
        found = prepared.quantize(QuantScheme.parse("w8a8", steps=steps))(IMAGES)
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert found.isfinite().all()


def test_a_network_with_norms_is_not_standardised() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 4))
    first, second = (quantize(network, "w8a8", calibration=IMAGES, standardise=on) for on in (True, False))
    assert torch.equal(first(IMAGES), second(IMAGES))


def test_only_predicted_weights_are_standardised_by_default(network: Network) -> None:
    plain = quantize(network, "float32", calibration=IMAGES, standardise=False)(IMAGES)
    assert torch.equal(quantize(network, "float32", calibration=IMAGES)(IMAGES), plain)
    mark_predicted(network)
    assert has_predicted_weights(network)
    assert has_predicted_weights(copy.deepcopy(network))
    standardised = quantize(network, "float32", calibration=IMAGES)(IMAGES)
    assert not torch.allclose(standardised, plain)
    with torch.no_grad():
        network.last.weight.mul_(1.01)  # trained on
    assert not has_predicted_weights(network)


def test_initialize_marks_what_it_returns() -> None:
    ghn = ghnq.GHN(ghnq.hypernet.GHNConfig(hidden=16, decoder_hidden=(16, 16))).eval()
    module = ghnq.spaces.get("convnets").build(ghnq.spaces.get("convnets").spec("bnfree", 0))
    network = ghnq.initialize(module, ghn)
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert has_predicted_weights(network)
    assert not has_predicted_weights(module)
    logits = quantize(network, "float32", calibration=images)(images)
    expected = quantize(network, "float32", calibration=images, standardise=True)(images)
    assert torch.equal(logits, expected)


def test_constant_channels_are_centred_and_named(network: Network) -> None:
    with torch.no_grad():
        network.plain.weight[2] = 0
    with pytest.warns(GhnqWarning, match=r"constant on the calibration images.*'plain' \(1\)"):
        prepared = prepare(network, IMAGES, standardise=True)
    with torch.no_grad():
        deployed = prepared.quantize("w8a8")
        assert deployed(IMAGES).isfinite().all()
        assert deployed.get_submodule("plain").bias[2].abs() < 1e-3


def test_outputs_that_are_not_finite_are_refused(network: Network) -> None:
    with torch.no_grad():
        network.branch.weight.fill_(3e38)
    with pytest.raises(NotFiniteError, match="layer 'branch'"):
        prepare(network, IMAGES, standardise=True)


def test_norms_of_other_dimensions() -> None:
    network = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3))
    attach_norms(network, unnormalised_layers(network, torch.randn(2, 3, 9)))
    assert isinstance(network.get_submodule("0.standardisation"), nn.BatchNorm1d)
    output = network.train()(torch.randn(32, 3, 9))
    torch.testing.assert_close(output.mean((0, 2)), torch.zeros(4), atol=1e-5, rtol=0)
