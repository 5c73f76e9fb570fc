"""Mixed precision of one small network, compared with direct computation; networks that are refused."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from ghnq.analysis.mixed_precision import Budget, Mixed, mix
from ghnq.analysis.sensitivity import measure_sensitivity
from ghnq.data import ImageDataset
from ghnq.errors import DataError, GhnqError, NotFiniteError, SchemeError
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize
from ghnq.prediction import Network
from ghnq.quant import LayerBits, QuantScheme, quantize
from tests.analysis.conftest import Net, predicted


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


def test_logits_among_other_results_are_measured(ghn: GHN, digits: ImageDataset) -> None:
    alone, pair = (predicted(kind(), ghn, digits) for kind in (Net, Pair))
    scheme = QuantScheme.parse("w4a8")
    expected = measure_sensitivity(alone, alone.dataset.test, scheme)
    assert measure_sensitivity(pair, pair.dataset.test, scheme) == expected


def test_answers_that_are_no_logits_are_refused(ghn: GHN, digits: ImageDataset) -> None:
    network = predicted(Map(), ghn, digits)
    says = r"shape \[2, 10, 1, 1\]"
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
