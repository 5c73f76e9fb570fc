"""Signals against independent computations of the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghnq.analysis.score import score
from ghnq.errors import GhnqError, GraphError
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.quant import QuantScheme
from ghnq.search.evidence import evidence
from ghnq.search.short_finetuning import BATCH_SIZE, steps_of
from ghnq.search.signals import DEFAULT, SIGNALS, Effort, signal_of
from ghnq.search.subject import Bench, Budget, Subject
from tests.search.conftest import small
from tests.small_networks import small_ghn

W4A4 = QuantScheme.parse("w4a4")


def subject(bench: Bench, module: nn.Module, images: int = 500, seconds: float = 0.0) -> Subject:
    return bench.subject(module, W4A4, Budget(images, seconds))


def test_accuracy_is_that_of_ghnq_score(bench: Bench) -> None:
    module = small(12)
    (row,) = score(module, bench.dataset, ghn=small_ghn(), schemes=("w4a4",))
    found = SIGNALS["accuracy"].measure(subject(bench, module, len(bench.measured)))
    assert found == pytest.approx(row.accuracy, abs=0)


def test_loss_is_cross_entropy_of_the_quantized_network(bench: Bench) -> None:
    module = small(12)
    measured = subject(bench, module, 90)
    network = measured.network.quantized(W4A4)
    with torch.no_grad():
        logits = network(bench.dataset.normalise(bench.measured.first(90).pixels)).double().numpy()
    logits -= logits.max(1, keepdims=True)
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.log(chance[np.arange(90), bench.measured.first(90).labels.numpy()]).mean()
    assert SIGNALS["loss"].measure(measured) == pytest.approx(expected, rel=1e-9)


def test_sizes_are_logarithms(bench: Bench) -> None:
    measured = subject(bench, small(12))
    parameters = 12 * 9 + 12 + 24 + 12 * 10 + 10
    assert SIGNALS["params"].measure(measured) == math.log10(parameters)
    assert SIGNALS["macs"].measure(measured) == math.log10(12 * 9 * 64 + 120)


@pytest.mark.parametrize("name", evidence().fits)
def test_fits_are_the_combinations_in_the_evidence(bench: Bench, name: str) -> None:
    measured = subject(bench, small(12), seconds=0.5)
    terms = evidence().fits[name].terms
    assert terms.keys() <= SIGNALS.keys() - evidence().fits.keys()
    values = {term: SIGNALS[term].measure(measured) for term in terms}
    assert all(value is not None for value in values.values())
    assert SIGNALS[name].measure(measured) == sum(terms[term] * (values[term] or 0.0) for term in terms)
    assert SIGNALS[name].effort == max(SIGNALS[term].effort for term in terms)


def test_the_flow_of_a_linear_network_is_one_path_sum_for_each_layer(bench: Bench) -> None:
    # R = 1 |W2| |W1| x is linear in each weight, so that the flow is R for each of the two layers.
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 7, bias=False), nn.Linear(7, 10, bias=False))
    measured = subject(bench, module)
    random = KaimingWeights(bench.seed).network(module, measured.network.graph, W4A4)
    first, second = (layer.weight.detach().double().abs() for layer in (random[1], random[2]))  # type: ignore[index]
    expected = math.log10(2 * float((second @ first).sum()))
    assert SIGNALS["synflow"].measure(measured) == pytest.approx(expected, rel=1e-12)


def test_naswot_counts_relus_that_agree(bench: Bench) -> None:
    module = small(6, depth=2)
    measured = subject(bench, module)
    random = KaimingWeights(bench.seed).network(module, measured.network.graph, W4A4).train()
    x = bench.dataset.normalise(bench.training.train.balanced(64, bench.seed).pixels)
    codes = []
    with torch.no_grad():
        for layer in random:  # type: ignore[attr-defined]
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                codes.append((x > 0).flatten(1).numpy())
    code = np.concatenate(codes, 1)
    agreeing = (code[:, None] == code[None]).sum(2).astype(float)
    assert SIGNALS["naswot"].measure(measured) == pytest.approx(np.linalg.slogdet(agreeing)[1], rel=1e-9)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 5, 3), nn.Linear(5, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


def test_naswot_sees_functional_relus_and_refuses_networks_without_any(bench: Bench) -> None:
    class Method(Functional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x).relu().mean((2, 3)))

    values = {SIGNALS["naswot"].measure(subject(bench, module)) for module in (Functional(), Method())}
    assert len(values) == 1
    assert None not in values
    without = nn.Sequential(nn.Conv2d(1, 5, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 10))
    with pytest.raises(GraphError, match="no ReLU"):
        SIGNALS["naswot"].measure(subject(bench, without))


def test_finetuning_learns_and_does_not_depend_on_the_clock(bench: Bench) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 10)
    )
    before = SIGNALS["accuracy"].measure(subject(bench, module))
    after = [SIGNALS["finetune"].measure(subject(bench, module, seconds=1.0)) for _ in range(2)]
    assert after[0] == after[1]
    assert before is not None
    assert after[0] is not None
    assert after[0] > before + 20


def test_training_from_random_weights_does_not_know_the_hypernetwork(bench: Bench) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 10)
    )
    found = SIGNALS["train"].measure(subject(bench, module, seconds=1.0))
    random = Bench.of(KaimingWeights(bench.seed), bench.dataset, bench.seed)
    assert found == SIGNALS["finetune"].measure(subject(random, module, seconds=1.0))
    assert found != SIGNALS["finetune"].measure(subject(bench, module, seconds=1.0))
    assert found is not None
    assert found > 30


def test_a_budget_of_seconds_is_work() -> None:
    assert steps_of(1e-9, 10**9) == 1
    assert steps_of(60, 10**6) > steps_of(60, 10**7) > steps_of(60, 10**8)
    # With large networks the time of a step is that of its multiply-adds.
    assert steps_of(3000, 10**9) == pytest.approx(10 * steps_of(300, 10**9), rel=0.1)
    assert BATCH_SIZE > 1


def test_a_network_that_overflows_has_no_value(bench: Bench) -> None:
    class Overflows(Functional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1e30 * 1e30

    measured = subject(bench, Overflows())
    assert SIGNALS["loss"].measure(measured) is None
    assert SIGNALS["accuracy"].measure(subject(bench, Overflows())) == 0


def test_the_default_orders_better_than_size() -> None:
    found = evidence()
    default = found.fits[DEFAULT]
    for size in ("macs", "params"):
        assert default.tau > found.signals[size].tau
        assert (default.within_budget or -1) > (found.signals[size].within_budget or -1)
    said = found.lines("accuracy")
    assert f"tau of 'accuracy' is {found.signals['accuracy'].tau:.2f}" in said[0]
    assert found.caution in said


def test_an_unknown_signal_is_refused_with_the_nearest() -> None:
    with pytest.raises(GhnqError, match="no signal 'acuracy' \\(did you mean 'accuracy'\\?\\)"):
        signal_of("acuracy")
    assert {each.effort for each in SIGNALS.values()} == set(Effort)
