"""Transfer to other classes: the regression against least squares, the head that is found, whole networks."""

from __future__ import annotations

import copy
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
from ghnq.finetune.ridge import STRENGTHS, best_temperature, solve_classifier, solve_ridge
from ghnq.finetune.transfer import TransferredWeights, needs_transfer
from ghnq.hypernet import GHN
from ghnq.prediction import Network, PredictedWeights, StoredWeights, count_correct, dataset_for
from ghnq.quant import QuantScheme
from tests.finetune.conftest import Go
from tests.small_networks import small_digits, small_ghn


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), features=st.integers(1, 12), classes=st.integers(2, 5), images=st.integers(30, 90))
def test_weights_are_those_of_penalised_least_squares(seed: int, features: int, classes: int, images: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, features, generator=generator) * 3 + 1
    labels = torch.randint(0, classes, (images,), generator=generator)
    found = solve_classifier(x, labels, classes)
    assert found.strength in STRENGTHS
    assert 0.01 <= found.temperature <= 1
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


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000), features=st.integers(1, 40), images=st.integers(2, 30), bias=st.booleans(),
    strength=st.sampled_from(STRENGTHS),
)  # fmt: skip
def test_any_shape_is_solved_as_an_augmented_system(
    seed: int, features: int, images: int, bias: bool, strength: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, features, generator=generator, dtype=torch.float64) + 1
    y = torch.randn(images, 3, generator=generator, dtype=torch.float64)
    (weight, offset), *none = solve_ridge(x, y, (strength,), bias=bias)
    assert not none
    # The oracle solves for weight and unpenalised bias at once, and centres nothing.
    deviation = x - x.mean(0) if bias else x
    penalty = np.sqrt(strength * float(deviation.square().sum()) / features)
    rows = np.vstack([x.numpy(), penalty * np.eye(features)])
    if bias:
        rows = np.hstack([rows, np.r_[np.ones(images), np.zeros(features)][:, None]])
    solved = np.linalg.lstsq(rows, np.vstack([y.numpy(), np.zeros((features, 3))]), rcond=None)[0]
    np.testing.assert_allclose(weight.numpy(), solved[:features].T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(offset.numpy(), solved[features] if bias else np.zeros(3), rtol=1e-5, atol=1e-6)


def test_the_same_images_give_the_same_bits() -> None:
    x = torch.randn(500, 20, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(500) % 7
    first, second = solve_classifier(x, labels, 7), solve_classifier(x, labels, 7)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 3))
def test_no_other_temperature_has_a_lower_cross_entropy(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (200,), generator=generator)
    logits = torch.randn(200, 4, generator=generator, dtype=torch.float64) + nn.functional.one_hot(labels, 4)
    logits = scale * logits
    found = best_temperature(logits, labels)

    def loss(temperature: float) -> float:
        return float(nn.functional.cross_entropy(logits / temperature, labels))

    assert all(loss(found) <= loss(other) + 1e-12 for other in np.geomspace(0.01, 1, 200))


def test_a_rare_class_is_not_given_up() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.zeros(900), torch.ones(30)]).long()
    x = torch.randn(930, 6, generator=generator) + 6 * labels[:, None]
    found = solve_classifier(x, labels, 2)
    assert torch.equal((x.double() @ found.weight.T + found.bias).argmax(1), labels)


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


class Transposed(nn.Module):
    """[B, C, T] -> [B, T, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class MeanOfTokens(nn.Module):
    """[B, T, K] -> [B, K]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


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
        (nn.Sequential(nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0"),
        (nn.Sequential(nn.Conv2d(6, 4, 1, stride=2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0"),
        (nn.Sequential(nn.Conv2d(6, 4, 5), nn.Flatten()), "0"),
        (nn.Sequential(nn.Flatten(2), Transposed(), nn.Linear(6, 4), MeanOfTokens()), "2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(150, 4), nn.LogSoftmax(1)), "1"),
        (nn.Sequential(nn.Flatten(), nn.Linear(150, 4, bias=False)), "1"),
        (Twice(), "head"),
    ],
)
def test_the_head_is_found(module: nn.Module, head: str) -> None:
    images = torch.randn(3, 6, 5, 5, generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = find_head(module, images)
    assert found.name == head
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    features = features_of(module, found, iter(images.split(2)))
    expected = features @ found.weight.T + (0 if found.layer.bias is None else found.layer.bias)
    logits = module(images)
    torch.testing.assert_close(expected.log_softmax(1), logits.log_softmax(1))


def test_what_follows_the_last_layer_is_not_ignored() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4), nn.Softmax(1))
    with pytest.raises(GraphError, match=r"'2' is the last layer, but the network changes its output"):
        find_head(module, torch.randn(2, 6, 5, 5))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "changes its output"),
        (nn.Sequential(nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "a kernel of 3x3 positions"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "calls no nn.Linear"),
        (
            nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(150, 4))),
            "'1' has a weight or bias that is computed",
        ),
    ],
)
def test_where_no_head_can_be_solved_it_is_said_why(module: nn.Module, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        find_head(module, torch.randn(3, 6, 5, 5))


def test_a_layer_that_is_called_twice_is_no_head() -> None:
    layer = nn.Linear(6, 6)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer, nn.ReLU(), layer)
    with pytest.raises(GraphError, match="is called 2 times"):
        find_head(module, torch.randn(3, 6, 5, 5))
    tied = nn.Linear(6, 6)
    tied.weight = layer.weight
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer, nn.ReLU(), tied)
    with pytest.raises(GraphError, match="shares its weight with a layer before it"):
        find_head(module, torch.randn(3, 6, 5, 5))


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


def test_as_many_classes_of_other_images_are_other_classes() -> None:
    ghn = GHN.from_pretrained("digits")
    own = dataset_for(ghn)
    other = ImageDataset.build(
        "other", Images(255 - own.train.pixels, own.train.labels), Images(255 - own.test.pixels, own.test.labels),
        tuple("abcdefghij"), flip=False,
    )  # fmt: skip
    assert not needs_transfer(ghn, own)
    assert needs_transfer(ghn, other)
    assert ghn.task is not None
    # The hash decides where there is one, equal means and deviations or not.
    hashed = copy.copy(ghn)
    for digest, dataset in ((own.content_hash, own), (other.content_hash, other)):
        hashed.task = ghn.task.model_copy(update={"data_sha256": digest})
        assert not needs_transfer(hashed, dataset)
    assert needs_transfer(hashed, own)
    hashed.task = None
    assert not needs_transfer(hashed, other)  # it does not say which images are its own


def test_a_predicted_head_can_be_kept() -> None:
    ghn = GHN.from_pretrained("digits")
    dataset = dataset_for(ghn)
    module = network_for(10)
    with torch.no_grad():
        kept = ghnq.transfer(module, ghn, dataset, head="predicted")
        predicted = Network(module, PredictedWeights(ghn), dataset, dataset.calibration(512, 0)).quantized(
            QuantScheme.parse("float32")
        )
        pixels = dataset.normalise(dataset.test.pixels)
        torch.testing.assert_close(kept(pixels), predicted(pixels), rtol=1e-3, atol=1e-2)
        assert not torch.allclose(ghnq.transfer(module, ghn, dataset)(pixels), kept(pixels), atol=0.1)
    with pytest.raises(DataError, match="heads for 10 classes, but 'five' has 5"):
        ghnq.transfer(network_for(5), ghn, five_classes(), head="predicted")
    with pytest.raises(ghnq.GhnqError, match="no head 'slved'"):
        ghnq.transfer(module, ghn, dataset, head="slved")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head",
    [
        (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)),
        (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10, bias=False)),
        (nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 10, 1), nn.Flatten()),
        (nn.Conv2d(24, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10), nn.LogSoftmax(1)),
    ],
    ids=["linear", "without bias", "convolution", "convolution before pooling", "log-softmax"],
)
@pytest.mark.parametrize("norm", [True, False])
def test_grey_digits_with_the_checkpoint_of_colour_images(head: tuple[nn.Module, ...], norm: bool) -> None:
    """The body is predicted for one channel; equal heads, however they are written, are equally good."""
    ghn, dataset = GHN.from_pretrained("cifar10"), load("digits")
    norms = [nn.BatchNorm2d(16), nn.BatchNorm2d(24)] if norm else [nn.Identity(), nn.Identity()]
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), norms[0], nn.ReLU(), nn.Conv2d(16, 24, 3), norms[1], nn.ReLU(), *head
    )
    assert needs_transfer(ghn, dataset)
    weights = TransferredWeights(ghn, dataset)
    assert "1294 training images of 'digits'" in weights.description
    network = ghnq.transfer(module, ghn, dataset)
    source = Network(module, weights, dataset, dataset.calibration(512, 0))
    deployed = source.quantized(QuantScheme.parse("float32"))
    pixels = dataset.normalise(dataset.test.pixels)
    with torch.no_grad():
        for found in (network, deployed):
            logits = found(pixels)
            # Guessing gives 10; how good the features are is up to the shipped checkpoint (80 to 94 without training).
            accuracy = 100 * float((logits.argmax(1) == dataset.test.labels).float().mean())
            assert accuracy > 75
            # Not only the order of the logits is right, their scale is: ln 10 = 2.3 for guessing.
            assert float(nn.functional.cross_entropy(logits, dataset.test.labels)) < 0.75
        torch.testing.assert_close(network(pixels), deployed(pixels), rtol=1e-3, atol=1e-2)


def test_many_features_and_unequal_classes() -> None:
    digits = load("digits")
    train, test = (part.take((part.labels < 2).nonzero().flatten()) for part in (digits.train, digits.test))
    keep = torch.cat([(train.labels == 0).nonzero().flatten(), (train.labels == 1).nonzero().flatten()[:15]])
    dataset = ImageDataset.build("rare", train.take(keep), test, ("0", "1"), flip=False)
    module = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 2))
    network = ghnq.transfer(module, GHN.from_pretrained("cifar10"), dataset)
    with torch.no_grad():
        right = network(dataset.normalise(test.pixels)).argmax(1) == test.labels
    assert all(float(right[test.labels == label].float().mean()) > 0.7 for label in (0, 1))


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


def test_a_run_that_starts_there_says_so_in_its_file(go: Go, digits: ImageDataset) -> None:
    weights = TransferredWeights(GHN.from_pretrained("cifar10"), digits)
    result = go("w4a8", weights=weights, epochs=1, lr=0.01)
    assert result.before["w4a8"] > 50
    assert StoredWeights.read(result.weights).metadata["head"] == weights.description
