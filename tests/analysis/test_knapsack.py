"""The choice under a budget against brute force."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.analysis.knapsack import choose

options = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 50)), min_size=1, max_size=4)


def brute_force(items: list[list[tuple[float, float]]], budget: float) -> float | None:
    """The least loss of all combinations within the budget."""
    sums = (tuple(map(sum, zip(*combination, strict=True))) for combination in itertools.product(*items))
    return min((loss for cost, loss in sums if cost <= budget), default=None)


@settings(max_examples=150)
@given(st.lists(options, min_size=1, max_size=5), st.integers(0, 120))
def test_no_combination_is_better(items: list[list[tuple[int, int]]], budget: int) -> None:
    costs, losses = ([[pair[n] for pair in item] for item in items] for n in (0, 1))
    picks = choose(costs, losses, budget)
    best = brute_force(items, budget)
    if picks is None:
        assert best is None
        return
    assert best is not None
    assert sum(row[pick] for row, pick in zip(costs, picks, strict=True)) <= budget
    assert sum(row[pick] for row, pick in zip(losses, picks, strict=True)) == best


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.lists(st.floats(0, 1e3), min_size=3, max_size=3)), max_size=7,
             min_size=1),
    st.floats(2.0, 8.0),
)  # fmt: skip
def test_layers_of_very_different_size(layers: list[tuple[int, list[float]]], bits: float) -> None:
    costs, losses = [[size * b for b in (2, 4, 8)] for size, _ in layers], [loss for _, loss in layers]
    budget = bits * sum(size for size, _ in layers)
    picks = choose(costs, losses, budget)
    assert picks is not None
    best = brute_force([list(zip(c, x, strict=True)) for c, x in zip(costs, losses, strict=True)], budget)
    assert best is not None
    assert sum(row[pick] for row, pick in zip(costs, picks, strict=True)) <= budget
    found = sum(row[pick] for row, pick in zip(losses, picks, strict=True))
    assert found == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_infinite_losses_are_avoided_where_possible() -> None:
    assert choose([[1, 2], [1, 2]], [[math.inf, 1], [math.inf, 1]], 4) == [1, 1]
    assert choose([[1, 2], [1, 2]], [[math.inf, 1], [math.inf, 2]], 3) in ([0, 1], [1, 0])
    assert choose([[1, 2]], [[math.inf, 1]], 1) == [0]


def test_what_cannot_be_kept_is_told() -> None:
    assert choose([[2, 4], [2, 4]], [[1, 0], [1, 0]], 3.9) is None
    assert choose([[2, 4], [2, 4]], [[1, 0], [1, 0]], 4) == [0, 0]


def test_many_layers_end_soon() -> None:
    """3^200 combinations; the bound leaves few of them."""
    import random

    dice = random.Random(0)
    sizes = [dice.randint(10, 10**6) for _ in range(200)]
    losses = [sorted((dice.expovariate(1) * 4.0**-b for b in range(3)), reverse=True) for _ in sizes]
    budget = 4.3 * sum(sizes)
    picks = choose([[size * b for b in (2, 4, 8)] for size in sizes], losses, budget)
    assert picks is not None
    used = sum(size * (2, 4, 8)[pick] for size, pick in zip(sizes, picks, strict=True))
    assert 0.999 * budget < used <= budget
