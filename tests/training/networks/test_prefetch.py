"""What is prepared ahead is what would have been made when asked for, also where it fails or where a run jumps."""

import threading
from pathlib import Path

import pytest

from ghnq.training import Recipe
from ghnq.training.networks.prefetch import Prefetcher
from tests.training.runs import assert_same_run, die_and_resume, go


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_steps_come_in_any_order(depth: int) -> None:
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        return step * step

    ahead = Prefetcher(make, depth)
    assert [ahead(step) for step in (0, 1, 2, 7, 8, 3)] == [0, 1, 4, 49, 64, 9]
    ahead.close()
    assert set(made) >= {0, 1, 2, 7, 8, 3}


def test_a_step_is_made_before_it_is_asked_for_and_once() -> None:
    made: list[int] = []
    third = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 2:
            third.set()
        return step

    ahead = Prefetcher(make, 2)
    assert ahead(0) == 0
    assert third.wait(10)
    assert [ahead(1), ahead(2)] == [1, 2]
    ahead.close()
    assert made == sorted(set(made))


@pytest.mark.parametrize("depth", [0, 2])
def test_a_failure_is_raised_where_its_step_is_asked_for(depth: int) -> None:
    def make(step: int) -> int:
        return 1 // (2 - step)

    ahead = Prefetcher(make, depth)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        ahead(2)
    ahead.close()


def test_a_run_that_prepares_ahead_is_the_same_to_the_bit(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threading.active_count()
    go(tiny, tmp_path / "off")
    go(tiny.model_copy(update={"prefetch": 3}), tmp_path / "on")
    assert_same_run(tmp_path / "off", tmp_path / "on")
    die_and_resume(tiny.model_copy(update={"prefetch": 1}), tmp_path / "parts", at_step=5, monkeypatch=monkeypatch)
    assert_same_run(tmp_path / "off", tmp_path / "parts")
    assert threading.active_count() == threads
