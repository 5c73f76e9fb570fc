"""Transfer to other classes: the regression against least squares, the head that is found, whole networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import ghnq
from ghnq.data import ImageDataset, Images, load
from ghnq.errors import DataError, GraphError
from ghnq.finetune.head import features_of, find_head
from ghnq.finetune.ridge import MIN_PER_CLASS, STRENGTHS, TEMPERATURES, solve_classifier
from ghnq.finetune.transfer import TransferredWeights, needs_transfer
from ghnq.hypernet import GHN
from ghnq.prediction import Network, count_correct, dataset_for
from ghnq.quant import QuantScheme
from tests.small_networks import small_digits, small_ghn


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), features=st.integers(1, 12), classes=st.integers(2, 5), images=st.integers(30, 90))
def test_weights_are_those_of_penalised_least_squares(seed: int, features: int, classes: int, images: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, features, generator=generator) * 3 + 1
    labels = torch.randint(0, classes, (images,), generator=generator)
    found = solve_classifier(x, labels, classes)
    assert found.strength in STRENGTHS or images < MIN_PER_CLASS * classes
    assert found.temperature in TEMPERATURES or images < MIN_PER_CLASS * classes
    # The oracle: least squares of [X; sqrt(s m) I] on [Y; 0], both centred.
    x64 = x.double().numpy()
    y = np.eye(classes)[labels.numpy()]
    xc, yc = x64 - x64.mean(0), y - y.mean(0)
    penalty = np.sqrt(found.strength * (xc**2).sum(0).mean())
    rows = np.vstack([xc, penalty * np.eye(features)])
    weight = np.linalg.lstsq(rows, np.vstack([yc, np.zeros((features, classes))]), rcond=None)[0].T
    bias = y.mean(0) - weight @ x64.mean(0)
    np.testing.assert_allclose(found.weight.numpy() * found.temperature, weight, atol=1e-6)
    np.testing.assert_allclose(found.bias.numpy() * found.temperature, bias, atol=1e-6)


def test_classes_that_a_line_separates_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (300,), generator=generator)
    x = torch.randn(300, 4, generator=generator) + 20 * nn.functional.one_hot(labels, 4)
    found = solve_classifier(x, labels, 3)
    assert torch.equal((x.double() @ found.weight.T + found.bias).argmax(1), labels)
    assert found.held_out_accuracy == 100


def test_constant_features_give_the_shares_of_the_classes() -> None:
    labels = torch.tensor([0] * 30 + [1] * 10).repeat(5)
    found = solve_classifier(torch.ones(200, 3), labels, 2)
    assert torch.equal(found.weight, torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(found.bias * found.temperature, torch.tensor([0.75, 0.25]).double())


class Twice(nn.Module):
    """Two linear layers of as many outputs; the first is the head."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary, self.head = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))
        logits = self.head(pooled)
        self.auxiliary(pooled)
        return torch.as_tensor(logits)


@pytest.mark.parametrize(
    ("module", "head"),
    [
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), "4"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1), nn.Flatten()), "1"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4), nn.Identity()), "2"),
        (Twice(), "head"),
    ],
)
def test_the_head_is_found(module: nn.Module, head: str) -> None:
    images = torch.randn(3, 6, 5, 5, generator=torch.Generator().manual_seed(1))
    assert find_head(module, images) == head
    features = features_of(module, head, iter(images.split(2)))
    layer = module.get_submodule(head)
    expected = features @ layer.weight.flatten(1).T + layer.bias  # type: ignore[union-attr, operator]
    torch.testing.assert_close(expected, module(images))


def test_what_follows_the_last_layer_is_not_ignored() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4), nn.Softmax(1))
    with pytest.raises(GraphError, match=r"the last such layer is '2'"):
        find_head(module, torch.randn(2, 6, 5, 5))


def five_classes() -> ImageDataset:
    """Digits 0 to 4 enlarged to 12 x 12 pixels."""
    digits = load("digits")
    parts = []
    for images in (digits.train, digits.test):
        chosen = images.take((images.labels < 5).nonzero().flatten())
        pixels = nn.functional.interpolate(chosen.pixels.float(), size=(12, 12)).byte()
        parts.append(Images(pixels, chosen.labels))
    return ImageDataset.build("five", *parts, tuple("01234"), flip=False)


def network_for(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, classes),
    )  # fmt: skip


def test_other_classes_and_sizes() -> None:
    ghn, dataset = GHN.from_pretrained("digits"), five_classes()
    assert needs_transfer(ghn, dataset)
    assert not needs_transfer(ghn, dataset_for(ghn))
    module = network_for(5)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    network = ghnq.transfer(module, ghn, dataset)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert network.state_dict().keys() == before.keys()
    accuracy = count_correct(network, dataset, dataset.test).correct / len(dataset.test)
    assert accuracy > 0.9
    # As a source of weights: the same network, and others at four bits.
    source = Network(module, TransferredWeights(ghn, dataset), dataset, dataset.calibration(len(dataset.train), 0))
    in_float = source.quantized(QuantScheme.parse("float32"))
    assert abs(count_correct(in_float, dataset, dataset.test).correct / len(dataset.test) - accuracy) < 0.01
    at_four = source.quantized(QuantScheme.parse("w4a8"))
    assert count_correct(at_four, dataset, dataset.test).correct / len(dataset.test) > 0.6


def test_other_images_are_refused_and_few_are_enough() -> None:
    ghn, dataset = small_ghn(), small_digits()
    weights = TransferredWeights(ghn, dataset)
    with pytest.raises(DataError, match="is solved for"):
        weights.check_dataset(five_classes())
    few = replace(five_classes(), train=five_classes().train.first(12))
    network = ghnq.transfer(network_for(5), GHN.from_pretrained("digits"), few)
    assert bool(network(few.normalise(few.test.pixels[:4])).isfinite().all())


def test_a_head_of_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(GraphError, match="has 7 outputs, but there are 5 classes"):
        ghnq.transfer(network_for(7), GHN.from_pretrained("digits"), five_classes())
