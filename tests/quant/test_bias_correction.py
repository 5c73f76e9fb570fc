"""Bias correction: on the calibration images, channel means are those of the float network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ghnq.quant import correct_bias, prepare, quantize
from ghnq.quant.bias_correction import MAX_INPUT_VALUES, select_images
from tests.quant.nets import CALIBRATION, TEST, error, network, quant_layers, randomise


def outputs(net: nn.Module, names: list[str], x: Tensor) -> dict[str, Tensor]:
    """Returns the output of each layer as [values, channels]."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name in names:

        def hook(module: nn.Module, args: object, y: Tensor, name: str = name) -> None:
            seen[name] = (y if y.dim() == 2 else y.movedim(1, -1).flatten(0, -2)).double()

        handles.append(net.get_submodule(name).register_forward_hook(hook))
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("word", ["w4a8", "w4a4", "w3", "w2a2"])
def test_channel_means_are_those_of_the_float_network(word: str) -> None:
    net = network(channels=16)
    reference = quantize(net, "float32", calibration=CALIBRATION)
    plain = quantize(net, word, calibration=CALIBRATION)
    before = {key: value.clone() for key, value in plain.state_dict().items() if value is not None}
    corrected = correct_bias(plain, reference, CALIBRATION)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in before.items())
    layers = dict(quant_layers(corrected))
    wanted, got, was = (outputs(n, list(layers), CALIBRATION) for n in (reference, corrected, plain))
    worst = 0.0
    for name, layer in layers.items():
        scale = wanted[name].abs().max()
        # Biases are integers of scale s_in * s_w: half a step is all that may be left, and float32's rounding.
        step = 0.0 if layer.input_scale is None else float((layer.input_scale * layer.weight_scale).max())
        assert (got[name].mean(0) - wanted[name].mean(0)).abs().max() <= 0.51 * step + 1e-5 * scale
        worst = max(worst, float((was[name].mean(0) - wanted[name].mean(0)).abs().max() / scale))
    assert worst > 0.01  # there was something to correct


def test_biases_are_those_of_the_integers() -> None:
    corrected = quantize(network(channels=16), "w4a8", calibration=CALIBRATION, steps=("correct_bias",))
    for _, layer in quant_layers(corrected):
        assert layer.bias_int is not None
        assert layer.bias is not None
        real = layer.bias_int.double() * layer.input_scale.double() * layer.weight_scale.double()
        torch.testing.assert_close(layer.bias.double(), real, rtol=1e-6, atol=0)


def test_layers_without_a_bias_and_layers_that_run_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once, self.twice = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1)
            self.never = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.twice(torch.relu(self.twice(self.once(x))))

    net, bright = randomise(Twice()), CALIBRATION + 1
    plain = quantize(net, "w2a4", calibration=bright)
    corrected = quantize(net, "w2a4", calibration=bright, steps=("correct_bias",))
    assert plain.once.bias is None
    assert bool(corrected.once.bias.abs().max() > 0)
    assert torch.equal(plain.twice.bias, corrected.twice.bias)
    assert corrected.never.bias.requires_grad == net.never.bias.requires_grad


def test_norms_that_are_not_folded_keep_their_statistics() -> None:
    """Such a norm subtracts a mean itself; its statistics are not re-estimated if biases are corrected."""
    net = network(channels=16)
    prepared = prepare(net, CALIBRATION)
    corrected = prepared.quantize("w4a4", protocol="deploy")
    stays = "4.bn0"
    both = quantize(net, "w4a4", calibration=CALIBRATION, steps=("correct_bias",))
    in_float = prepared.network.get_submodule(stays).running_mean
    assert torch.equal(both.get_submodule(stays).running_mean, in_float)
    assert not torch.equal(corrected.get_submodule(stays).running_mean, in_float)
    reference = prepared.quantize("float32")
    wanted, got = (outputs(n, ["4.conv"], CALIBRATION)["4.conv"].mean(0) for n in (reference, both))
    layer = both.get_submodule("4.conv")
    assert ((got - wanted).abs() <= 0.51 * layer.input_scale * layer.weight_scale + 1e-5).all()


def test_the_error_decreases_without_reestimation() -> None:
    net = network(channels=16)
    reference = quantize(net, "float32", calibration=CALIBRATION)
    plain, corrected = (
        quantize(net, "w4a8", calibration=CALIBRATION, protocol="paper", steps=steps)
        for steps in ((), ("correct_bias",))
    )
    assert error(corrected, reference) < error(plain, reference)


def test_the_batch_is_bounded() -> None:
    """All calibration images of CIFAR-10 run at once; of larger images, an even selection."""
    assert len(select_images(torch.zeros(512, 3, 32, 32), 256)) == 512
    large = torch.zeros(1, 3, 224, 224).expand(512, -1, -1, -1)
    chosen = select_images(large, 64)
    assert 64 / 2 <= len(chosen) <= 64
    assert large[0].numel() * 64 > MAX_INPUT_VALUES


def test_a_float_network_is_copied() -> None:
    net = quantize(network(), "float32", calibration=CALIBRATION)
    same = correct_bias(net, copy.deepcopy(net), CALIBRATION)
    assert same is not net
    with torch.no_grad():
        assert torch.equal(same(TEST), net(TEST))
