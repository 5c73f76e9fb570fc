"""Starts change how a network learns, not what it computes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import ghnq
from ghnq.data import ImageDataset
from ghnq.finetune.build import trainable_network
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.finetune.start import rescaled
from ghnq.prediction import Network, PredictedWeights
from ghnq.quant import QuantScheme, prepare
from tests.finetune.conftest import small_module

FLOAT32 = QuantScheme.parse("float32")


class Varied(nn.Module):
    """Layers with and without norms, with biases and groups, one weight that two layers share, a dead channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.depthwise_norm = nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)
        self.bare = nn.Conv2d(8, 8, 1)
        self.tied, self.tied_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.other = nn.Conv2d(8, 8, 1)
        self.other.weight = self.tied.weight
        self.hidden, self.hidden_norm = nn.Linear(8, 6), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=20.0)
        nn.init.zeros_(self.first.weight[3])
        nn.init.normal_(self.depthwise.weight[5], std=1e-7)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first_norm(self.first(x)))
        x = torch.relu(self.depthwise_norm(self.depthwise(x)))
        x = self.other(torch.relu(self.tied_norm(self.tied(torch.relu(self.bare(x))))))
        return self.head(torch.relu(self.hidden_norm(self.hidden(x.mean((2, 3))))))


def test_filters_before_norms_get_the_random_size_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    images = torch.randn(64, 3, 12, 12)
    prepared = prepare(Varied(), images, standardise=False)
    network, old = (
        copy.deepcopy(prepared.network).double(),
        dict(copy.deepcopy(prepared.network).double().named_parameters()),
    )
    before = network(images.double())
    rescaled(network, prepared.data_flow.norm_pairs)
    torch.testing.assert_close(
        network(images.double()), before, rtol=1e-9, atol=1e-9 * float(before.detach().abs().max())
    )
    new = {name: parameter.detach() for name, parameter in network.named_parameters()}
    expected = {"first.weight": (27, 8 * 9), "depthwise.weight": (9, 8 * 9), "hidden.weight": (8, 6)}
    for name, (fan_in, fan_out) in expected.items():
        norms = new[name].flatten(1).norm(dim=1)
        kept = [3] if name == "first.weight" else [5, 3] if name == "depthwise.weight" else []
        for channel, norm in enumerate(norms.tolist()):
            if channel in kept:  # constant outputs have no scale of their own
                assert norm == float(old[name][channel].detach().norm())
            else:
                assert norm == pytest.approx(math.sqrt(2 * fan_in / fan_out), rel=1e-6)
    changed = {name for name in new if not torch.equal(new[name], old[name])}
    assert changed == {*expected, "first.bias", "hidden.bias"}


def test_a_filter_that_random_weights_have_keeps_its_size_on_average() -> None:
    network = KaimingWeights(3).network(nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128)), None, FLOAT32)  # type: ignore[arg-type]
    before = float(network[0].weight.detach().norm())  # type: ignore[index, operator, union-attr]
    rescaled(network, [("0", "1")])
    assert float(network[0].weight.detach().norm()) == pytest.approx(before, rel=0.01)  # type: ignore[index, operator, union-attr]


def test_predicted_weights_are_rescaled_and_others_are_not(network: Network, digits: ImageDataset) -> None:
    ghn = ghnq.GHN.from_pretrained("digits")
    images = replace(ghnq.load_dataset("digits", image_size=16), flip=False)
    predicted = Network(small_module(), PredictedWeights(ghn), images, images.calibration(64, 0))
    for scheme in ("float32", "w4a4"):
        first = trainable_network(predicted, QuantScheme.parse(scheme), "rescaled").float_network()
        norms = first[0].weight.detach().flatten(1).norm(dim=1)  # type: ignore[index, operator, union-attr]
        torch.testing.assert_close(norms, torch.full((8,), math.sqrt(2 * 9 / 72)), rtol=1e-4, atol=0)
        as_is = trainable_network(predicted, QuantScheme.parse(scheme), "identity").float_network()
        torch.testing.assert_close(first(predicted.calibration), as_is(predicted.calibration), rtol=1e-3, atol=1e-3)
    own = trainable_network(network, FLOAT32, "rescaled").float_network()
    assert torch.equal(own[0].weight, network.prepared(FLOAT32).network[0].weight)  # type: ignore[index, arg-type]
