"""Sensitivity and mixed precision of one small network, against the plain way of computing each number."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.analysis.layer_costs import LayerCost, layer_costs
from ghnq.analysis.metrics import compare
from ghnq.analysis.mixed_precision import Budget, Mixed, mix
from ghnq.analysis.sensitivity import measure_sensitivity
from ghnq.data import ImageDataset
from ghnq.errors import DataError, GhnqError, NotFiniteError, SchemeError
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize
from ghnq.prediction import Network, PredictedWeights
from ghnq.quant import LayerBits, QuantScheme, quantize


class Net(nn.Module):
    """Three layers; the middle one runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.middle, self.last = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.middle(torch.relu(self.middle(x))))
        return self.last(x.mean((2, 3)))


def predicted(module: nn.Module, ghn: GHN, digits: ImageDataset, calibration: int = 40) -> Network:
    return Network(module, PredictedWeights(ghn), digits, digits.calibration(calibration, 0))


@pytest.fixture
def network(ghn: GHN, digits: ImageDataset) -> Network:
    return predicted(Net(), ghn, digits)


def test_costs_are_counted(network: Network) -> None:
    costs = layer_costs(network.prepared(QuantScheme.parse("w8a8")))
    assert costs == {
        "first": LayerCost(54, 54 * 9),
        "middle": LayerCost(162, 2 * 162 * 9),
        "last": LayerCost(60, 60),
    }


def test_rows_equal_the_plain_way(network: Network, ghn: GHN) -> None:
    report = measure_sensitivity(network, network.dataset.test, QuantScheme.parse("w3a8"))
    assert [row.name for row in report.layers] == ["first", "middle", "last"]
    net = initialize(network.module, ghn, (1, 8, 8))
    x, labels = network.dataset.normalise(network.dataset.test.pixels), network.dataset.test.labels
    with torch.no_grad():
        reference = quantize(net, "float32", calibration=network.calibration)(x)
        words = ["float32+middle=w3a8", "w3a8+middle=float32", "w3a8"]
        logits_of_schemes = [quantize(net, word, calibration=network.calibration)(x) for word in words]
    row = report.layers[1]
    for figures, logits in zip((row.alone, row.all_but, report.quantized), logits_of_schemes, strict=True):
        assert figures.accuracy == pytest.approx(100 * float((logits.argmax(1) == labels).float().mean()))
        assert figures.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
        p, q = reference.softmax(1).double(), logits.softmax(1).double()
        assert figures.divergence == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-3, abs=1e-7)
        noise = float((logits - reference).double().square().mean() / reference.double().square().mean())
        assert figures.sqnr == pytest.approx(-10 * math.log10(noise), abs=0.01)
    assert report.in_float.divergence == 0
    assert report.in_float.sqnr == math.inf
    assert report.document()["float32"]["sqnr"] is None


def test_networks_that_overflow_are_told_apart() -> None:
    figures = compare(None, torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    assert (figures.accuracy, figures.loss, figures.divergence) == (0.0, math.inf, math.inf)
    assert figures.document() == {"accuracy": 0.0, "loss": None, "divergence": None, "sqnr": None}


def cost(result: Mixed, bits: dict[str, LayerBits]) -> int:
    assert all(word.weight and word.activation for word in bits.values())
    if result.budget.measure == "size":
        return sum(result.costs[name].weights * (word.weight or 0) for name, word in bits.items())
    return sum(
        result.costs[name].multiply_adds * (word.weight or 0) * (word.activation or 0) for name, word in bits.items()
    )


@pytest.mark.parametrize("bits", [2.0, 4.7, 11.0])
def test_the_choice_is_the_best_of_all_by_the_additive_model(network: Network, ghn: GHN, bits: float) -> None:
    result = mix(network, network.dataset.test, Budget(bits), choices=(2, 4, 8))
    net = initialize(network.module, ghn, (1, 8, 8))
    x = network.calibration
    with torch.no_grad():
        reference = quantize(net, "float32", calibration=x)(x).log_softmax(1)
        loss = {}
        for name, b in itertools.product(result.layers, (2, 4, 8)):
            logits = quantize(net, f"float32+{name}=w{b}a8", calibration=x)(x)
            loss[name, b] = float((reference.exp() * (reference - logits.log_softmax(1))).sum(1).mean())
    weights = {name: layer.weights for name, layer in result.costs.items()}
    limit = bits * sum(weights.values())

    def total(picks: tuple[int, ...]) -> float:
        return sum(loss[name, b] for name, b in zip(weights, picks, strict=True))

    within = [
        picks
        for picks in itertools.product((2, 4, 8), repeat=3)
        if sum(w * b for w, b in zip(weights.values(), picks, strict=True)) <= limit
    ]
    chosen = tuple(word.weight or 0 for word in result.layers.values())
    assert chosen in within
    assert total(chosen) == pytest.approx(min(map(total, within)), rel=1e-3, abs=1e-7)
    mixed = result.measured[-1]
    assert mixed.bits <= bits
    assert mixed.bits == pytest.approx(cost(result, result.layers) / sum(weights.values()))
    assert all(row.bits <= bits for row in result.measured[1:])
    assert {name: str(result.scheme.bits_for(name)) for name in result.layers} == {
        name: str(word) for name, word in result.layers.items()
    }


def test_bit_operations_choose_activations_too(network: Network) -> None:
    result = mix(network, network.dataset.test, Budget(4.0, "bitops"), choices=(2, 4, 8))
    limit = 16 * sum(layer.multiply_adds for layer in result.costs.values())
    assert cost(result, result.layers) <= limit
    assert result.measured[-1].bits <= 4
    assert "w4a4" in [row.name for row in result.measured]


def test_an_impossible_budget_says_which_is_possible(network: Network) -> None:
    for budget in (Budget(3.9), Budget(3.9, "bitops")):
        with pytest.raises(SchemeError, match=r"the fewest bits on offer cost 4\.00"):
            mix(network, network.dataset.test, budget, choices=(4, 8))
    for bits in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(GhnqError, match="must be positive and finite, got"):
            mix(network, network.dataset.test, Budget(bits))


def test_what_cannot_be_studied_is_told(network: Network, ghn: GHN, digits: ImageDataset) -> None:
    with pytest.raises(SchemeError, match="quantizes no layer"):
        measure_sensitivity(network, network.dataset.test, QuantScheme.parse("float32"))
    plain = nn.Sequential(nn.BatchNorm2d(1), nn.AdaptiveAvgPool2d((2, 5)), nn.Flatten(), nn.ReLU())
    nothing = predicted(plain, ghn, digits)
    with pytest.raises(SchemeError, match="no convolution or linear layer"):
        measure_sensitivity(nothing, nothing.dataset.test, QuantScheme.parse("w4a8"))
    with pytest.raises(SchemeError, match="no convolution or linear layer"):
        mix(nothing, nothing.dataset.test, Budget(4.0))
    with pytest.raises(SchemeError, match="1 weight bits"):
        mix(network, network.dataset.test, Budget(4.0), choices=(1, 4))
    few = predicted(Net(), ghn, digits, 1)
    with pytest.raises(DataError, match="at least 2 images"):
        measure_sensitivity(few, few.dataset.test, QuantScheme.parse("w4a8"))


class Pair(Net):
    """Answers with more than logits."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


class Map(Net):
    """Answers for each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, None, None]


@pytest.mark.parametrize(
    ("kind", "says"), [(Pair, "two images the model returns tuple"), (Map, r"shape \[2, 10, 1, 1\]")]
)
def test_answers_that_are_no_logits_are_refused(
    ghn: GHN, digits: ImageDataset, kind: type[nn.Module], says: str
) -> None:
    network = predicted(kind(), ghn, digits)
    with pytest.raises(DataError, match=says):
        measure_sensitivity(network, network.dataset.test, QuantScheme.parse("w4a8"))
    with pytest.raises(DataError, match=says):
        mix(network, network.dataset.test, Budget(4.0))


class Overflowing(Net):
    """Answers with infinity."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1e38 * 1e38


def test_networks_that_give_no_numbers_are_refused(ghn: GHN, digits: ImageDataset) -> None:
    network = predicted(Overflowing(), ghn, digits)
    with pytest.raises(NotFiniteError, match="for 40 of 40 images, so there is nothing to compare"):
        measure_sensitivity(network, network.dataset.test, QuantScheme.parse("w4a8"))
    with pytest.raises(NotFiniteError, match="for 40 of 40 images"):
        mix(network, network.dataset.test, Budget(4.0))


def test_labels_name_the_whole_scheme(network: Network) -> None:
    def label(text: str, **changes: Any) -> str:
        return measure_sensitivity(network, network.dataset.test, QuantScheme.parse(text, **changes)).label

    assert label("w4a8") == "w4a8"
    assert label("w4a8+first=w8a8", steps=("correct_bias", "squant")) == "w4a8+first=w8a8 + squant + correct_bias"
    assert label("w4a8", protocol="paper") == "w4a8, protocol paper"
    assert label("w4a8", weight_range="mse") == "w4a8, protocol custom"
    many = "w4a8+first=w8a8+last=w8a8+middle=w2a8+m*=w3a8"
    assert label(many) == "2 x w8a8, 1 x w3a8"
