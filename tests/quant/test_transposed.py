"""Transposed convolutions are quantized with scales along dimension 1 of their weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ghnq.quant import QuantLayer, QuantScheme, fold_batch_norm, quantize
from ghnq.quant.trainable_layers import TrainableLayer
from tests.quant.nets import images, randomise
from tests.quant.oracle import fake_quantize_rows


def _network(groups: int, *, norm: bool = False, bias: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=groups, bias=bias)]
    tail = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)]
    network = nn.Sequential(*layers, *([nn.BatchNorm2d(6)] if norm else []), *tail)
    randomise(network)
    return network


@settings(max_examples=15)
@given(groups=st.sampled_from([1, 2]), bits=st.sampled_from([8, 4, 2]), bias=st.booleans())
def test_against_rows_quantized_in_numpy(groups: int, bits: int, bias: bool) -> None:
    network = _network(groups, bias=bias)
    simulated = quantize(network, QuantScheme.parse(f"w{bits}"), calibration=images(16))
    layer = simulated.get_submodule("2")
    assert isinstance(layer, QuantLayer)
    original = network[2]
    rows = original.weight.detach().numpy().swapaxes(0, 1)
    expected = fake_quantize_rows(rows, bits, True).swapaxes(0, 1)
    assert np.array_equal(layer.weight.detach().numpy(), expected)
    assert layer.weight_scale.shape == (6 // groups,)
    x = torch.randn(2, 4, 5, 5)
    by_hand = F.conv_transpose2d(
        x.double(), torch.from_numpy(expected).double(),
        None if original.bias is None else original.bias.double(), 2, 1, 1, groups,
    )  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(layer(x).double(), by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_integers_give_the_weight_and_the_bias(groups: int) -> None:
    layer = quantize(_network(groups), "w8a8", calibration=images(16)).get_submodule("2")
    assert isinstance(layer, QuantLayer)
    assert layer.bias is not None
    assert layer.bias_int is not None
    assert layer.input_scale is not None
    scale = layer.weight_scale.view(1, -1, 1, 1)
    assert torch.equal(layer.weight_int * scale, layer.weight)
    bias_scale = layer.input_scale.double() * layer.weight_scale.double().repeat(groups)
    assert torch.allclose(layer.bias_int * bias_scale, layer.bias.double(), rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_norm_is_folded(groups: int) -> None:
    network = _network(groups, norm=True).eval()
    folded = fold_batch_norm(network, images=images(4))
    assert isinstance(folded.get_submodule("3"), nn.Identity)
    with torch.no_grad():
        assert torch.allclose(network(images(8)), folded(images(8)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [("equalize",), ("squant",), ("correct_bias",), ("search_weights",)])
@pytest.mark.parametrize("groups", [1, 2])
def test_post_training_steps_stay_near_the_float_network(groups: int, steps: tuple[str, ...]) -> None:
    network = _network(groups, norm=True)
    in_float = quantize(network, "float32", calibration=images(32))(images(16))
    simulated = quantize(network, "w8a8", calibration=images(32), steps=steps)(images(16))
    simulated, in_float = simulated.detach(), in_float.detach()
    assert float((simulated - in_float).abs().max()) < 0.1 * float(in_float.abs().max())


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_trained_through_quantization_and_deployed(groups: int, scheme: str) -> None:
    network = _network(groups, norm=True)
    trainable = quantize(network, scheme, calibration=images(32), trainable=True)
    layers = [m for m in trainable.modules() if isinstance(m, TrainableLayer) and isinstance(m, nn.ConvTranspose2d)]
    assert len(layers) == 1
    trainable(images(8)).sum().backward()
    gradient = layers[0].weight.grad
    assert isinstance(gradient, Tensor)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0


def test_the_size_of_the_output_may_be_given() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.head = nn.ConvTranspose2d(3, 4, 3, 2, 1), nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.up(x, output_size=[32, 32]).mean((2, 3)))

    network = Sized()
    assert quantize(network, "w8a8", calibration=images(8))(images(2)).shape == (2, 10)
