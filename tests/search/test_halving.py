"""The rounds of successive halving, and the Pareto front, against their definitions."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghnq.search.halving import MIN_IMAGES, SPARE, Rung, best_first, plan
from ghnq.search.pareto import front
from ghnq.search.signals import SCREENING, SIGNALS, Effort
from ghnq.search.subject import Budget

FULL = Budget(500, 30.0)


@given(
    candidates=st.integers(1, 5000),
    top=st.integers(1, 60),
    images=st.integers(1, 5000),
)
def test_rounds_grow_in_budget_and_shrink_in_number(candidates: int, top: int, images: int) -> None:
    rungs = plan(candidates, top, SIGNALS["accuracy"], Budget(images, 30.0))
    assert rungs[0].candidates == candidates
    assert rungs[-1].budget == Budget(images)
    assert {rung.signal for rung in rungs} == {"accuracy"}
    for before, after in pairwise(rungs):
        assert before.candidates >= after.candidates >= SPARE * top
        assert before.budget.images < after.budget.images
        assert before.budget.images >= MIN_IMAGES
    spent = sum(rung.candidates * rung.budget.images for rung in rungs)
    assert spent <= candidates * images


def test_a_thousand_to_twenty() -> None:
    loss, macs = SIGNALS["loss"], SIGNALS["macs"]
    assert plan(1000, 20, loss, FULL) == [
        Rung(1000, "loss", Budget(56)), Rung(334, "loss", Budget(167)), Rung(112, "loss", Budget(500))
    ]  # fmt: skip
    assert plan(1000, 20, loss, FULL, halve=False) == [Rung(1000, "loss", Budget(500))]
    assert plan(1000, 20, macs, FULL) == [Rung(1000, "macs", Budget(0))]


@pytest.mark.parametrize("name", [name for name, each in SIGNALS.items() if each.effort is Effort.TRAINING])
def test_few_are_trained_after_rounds_without_training(name: str) -> None:
    signal = SIGNALS[name]
    *screening, short, trained = plan(1000, 20, signal, FULL)
    assert screening == plan(1000, 180, SIGNALS[SCREENING], FULL)
    assert (short, trained) == (Rung(180, name, Budget(500, 10.0)), Rung(60, name, FULL))
    assert SIGNALS[SCREENING].effort < Effort.TRAINING
    assert plan(100, 20, signal, FULL) == [Rung(100, name, Budget(500, 10.0)), Rung(60, name, FULL)]
    assert plan(1000, 20, signal, FULL, halve=False) == [Rung(1000, name, FULL)]
    assert plan(SPARE * 20, 20, signal, FULL) == [Rung(SPARE * 20, name, FULL)]


@given(st.lists(st.none() | st.integers(-2, 2) | st.floats(-5, 5), max_size=8))
def test_best_first_is_a_stable_order_with_what_is_not_finite_last(numbers: list[float | None]) -> None:
    values = {f"name {number}": value for number, value in enumerate(numbers)}
    names = list(values)
    order = best_first(names, values)
    assert sorted(order) == sorted(names)
    numbers = [values[name] for name in order]
    finite = [number for number in numbers if number is not None]
    assert finite == sorted(finite, reverse=True)
    assert numbers[: len(finite)] == finite
    for first, second in pairwise(order):
        if values[first] == values[second]:
            assert names.index(first) < names.index(second)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int, int]]) -> None:
    named = {str(number): point for number, point in enumerate(points)}
    expected = []
    for name, point in named.items():
        beaten = False
        for other in named.values():
            at_least = all(other[axis] >= point[axis] for axis in range(3))
            beaten |= at_least and any(other[axis] > point[axis] for axis in range(3))
        if not beaten:
            expected.append(name)
    assert front(named) == expected
