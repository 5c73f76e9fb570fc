"""Rankings: the same on any number of processes, after any interruption, and with candidates that fail."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from torch import Tensor, nn

from ghnq.errors import GhnqError
from ghnq.evaluation.engine import Processes
from ghnq.prediction import Network
from ghnq.search.candidates import Failure
from ghnq.search.halving import ETA, SPARE
from ghnq.search.latency import LatencyTest
from ghnq.search.ledger import KeptRow, RankLedger
from ghnq.search.limits import Limits
from ghnq.search.measuring import Task
from ghnq.search.ranking import Ranking, rank
from ghnq.search.settings import Settings
from ghnq.search.signals import SCREENING, SIGNALS
from ghnq.search.subject import Bench, Budget
from tests.search.conftest import measurer_of, silent, small

T = TypeVar("T")
R = TypeVar("R")


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("my own mistake")


def broken() -> nn.Module:
    raise ValueError("cannot be built")


CANDIDATES: dict[str, object] = {
    "narrow": small(4),
    "fails": Fails(),
    "wide": small(12),
    "deep": lambda: small(6, depth=3),
    "broken": broken,
    "five classes": nn.Sequential(nn.Flatten(), nn.Linear(64, 5)),
    "twin": small(12),
}


class Counting:
    """An engine in this process that counts what it runs, and stops after a number of tasks."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.tasks: list[object] = []
        self.stop_after = stop_after

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Generator[R, None, None]:
        for task in tasks:
            if self.stop_after is not None and len(self.tasks) == self.stop_after:
                raise KeyboardInterrupt
            self.tasks.append(task)
            yield function(task)


def ranked(
    bench: Bench,
    by: str = "accuracy",
    engine: Processes | Counting | None = None,
    folder: Path | None = None,
    candidates: dict[str, object] | None = None,
    **settings: object,
) -> Ranking:
    chosen: dict[str, object] = {"top": 2, "budget": Budget(100, 0.3), **settings}
    with RankLedger(folder, {"seed": 0}, {}) as ledger:
        return rank(
            measurer_of(bench, CANDIDATES if candidates is None else candidates, "w4a4", "float32"),
            Settings(by=SIGNALS[by], **chosen),  # type: ignore[arg-type]
            engine=engine or Counting(),
            ledger=ledger,
            stage=silent,
        )


def test_those_are_trained_that_are_best_without_training(bench: Bench) -> None:
    engine, many = Counting(), {f"width {width}": small(width) for width in range(3, 15)}
    found = ranked(bench, "train", engine, candidates=many, top=1)
    numbers = [(rung.candidates, rung.signal) for rung in found.rungs]
    assert numbers == [(12, SCREENING), (ETA * SPARE, "train"), (SPARE, "train")]
    tasks = [task for task in engine.tasks if isinstance(task, Task) and task.signal == "train"]
    few, trained = [task.candidate for task in tasks[:-SPARE]], [task.candidate for task in tasks[-SPARE:]]
    assert few == [each.name for each in ranked(bench, SCREENING, candidates=many, top=ETA * SPARE).best]
    assert {task.budget.seconds for task in tasks[:-SPARE]} == {0.3 / ETA}
    alone = ranked(bench, "train", candidates={name: many[name] for name in trained}, top=1)
    assert (found.best[0].name, found.best[0].value) == (alone.best[0].name, alone.best[0].value)


def test_what_fails_is_listed_and_the_rest_is_ranked(bench: Bench) -> None:
    found = ranked(bench, "macs", top=9)
    assert [each.name for each in found.best] == ["deep", "wide", "twin", "narrow"]
    reasons = {each.name: each.reason for each in found.failures}
    assert reasons.keys() == {"fails", "broken", "five classes"}
    assert "my own mistake" in reasons["fails"]
    assert reasons["broken"] == "ValueError: cannot be built"
    assert "5 outputs" in reasons["five classes"]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["accuracy", "finetune"])
def test_the_result_is_the_same_on_two_processes(bench: Bench, by: str) -> None:
    assert ranked(bench, by, Processes(2)).best == ranked(bench, by, Processes(1)).best


def test_equal_networks_are_measured_once(bench: Bench) -> None:
    engine = Counting()
    found = ranked(bench, "loss", engine, candidates={"wide": small(12), "twin": small(12)})
    assert [each.value for each in found.best] == [found.best[0].value] * 2
    measured = [task for task in engine.tasks if not isinstance(task, str)]
    assert len(measured) == 1 + 2  # loss at the first scheme, accuracy at both


def test_an_interrupted_ranking_goes_on_and_ends_as_one_that_was_not(bench: Bench, tmp_path: Path) -> None:
    whole, total = ranked(bench, engine=(engine := Counting())), len(engine.tasks)
    sizes = len(CANDIDATES)
    for stop in range(sizes + 1, total, 2):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            ranked(bench, engine=Counting(stop), folder=folder)
        again = Counting()
        assert ranked(bench, engine=again, folder=folder).best == whole.best
        assert len(again.tasks) == sizes + total - stop  # sizes are counted anew


def test_a_ranking_of_other_settings_is_refused(bench: Bench, tmp_path: Path) -> None:
    ranked(bench, folder=tmp_path)
    with pytest.raises(GhnqError, match="seed was 0, now 1"), RankLedger(tmp_path, {"seed": 1}, {}):
        pass


def test_a_line_that_is_no_row_is_told(bench: Bench, tmp_path: Path) -> None:
    ranked(bench, folder=tmp_path, candidates={"wide": small(12)})
    file = tmp_path / "rows.jsonl"
    text = file.read_text()
    row = '"value": '
    assert row in text
    for damaged in ('"value": "much"', '"value": NaN', '"volume": 1'):
        head, _, tail = text.rpartition(row)
        file.write_text(head + damaged + tail[tail.index(",") :])
        with pytest.raises(GhnqError, match=r"line \d+: is not a row"), RankLedger(tmp_path, {"seed": 0}, {}):
            pass


def test_halving_measures_most_candidates_on_few_images(bench: Bench, tmp_path: Path) -> None:
    candidates: dict[str, object] = {str(width): small(width) for width in range(3, 15)}
    found = ranked(bench, candidates=candidates, budget=Budget(999, 1.0), top=1, folder=tmp_path)
    assert [(rung.candidates, rung.budget.images) for rung in found.rungs] == [(12, 143)]  # all that are held out
    bench = replace(bench, measured=bench.dataset.test)
    found = ranked(bench, candidates=candidates, budget=Budget(150, 1.0), top=1, folder=tmp_path)
    assert [(rung.candidates, rung.budget.images) for rung in found.rungs] == [(12, 50), (4, 150)]
    assert len(found.order) == 4
    full = ranked(bench, candidates=candidates, budget=Budget(150, 1.0), top=1, halve=False)
    values = {each.name: each.value for each in full.best}
    assert len(full.order) == 12
    if found.best[0].name in values:
        assert found.best[0].value == values[found.best[0].name]


def test_no_candidate_within_the_limits_says_what_took_them(bench: Bench) -> None:
    limits = Limits(parameters=90, multiply_adds=10_000)
    with pytest.raises(GhnqError) as error:
        ranked(bench, "macs", limits=limits)
    assert "none of 4 candidates is left: --max-params 90 took 4, --max-macs 10,000 took 0" in str(error.value)
    assert f"--max-params {4 * 9 + 4 + 8 + 50}" in str(error.value)


def test_no_candidate_that_works_says_why(bench: Bench) -> None:
    with pytest.raises(GhnqError, match=r"all 2 candidates failed: fails: .*my own mistake.*; broken: ValueError"):
        ranked(bench, candidates={"fails": Fails(), "broken": broken})


def test_the_front_is_marked_and_the_test_images_come_last(bench: Bench) -> None:
    engine = Counting()
    found = ranked(bench, "accuracy", engine, top=4, on="test")
    accuracy = {each.name: each.accuracy["w4a4"] or 0.0 for each in found.best}
    for each in found.best:
        beaten = any(
            accuracy[other.name] >= accuracy[each.name]
            and other.sizes.multiply_adds <= each.sizes.multiply_adds
            and other.sizes.bytes <= each.sizes.bytes
            and (other.sizes.peak_memory or 0) <= (each.sizes.peak_memory or 0)
            and (accuracy[other.name], other.sizes) != (accuracy[each.name], each.sizes)
            for other in found.best
        )
        assert each.pareto != beaten
        assert each.test.keys() == {"w4a4", "float32"}
    # No test image is looked at before the best are chosen.
    last = [getattr(task, "on", "val") for task in engine.tasks]
    assert last == sorted(last, reverse=True)


class Known(LatencyTest):
    """Latencies by name, without ONNX Runtime."""

    def __init__(self, milliseconds: dict[str, float]) -> None:
        object.__setattr__(self, "milliseconds", milliseconds)

    def measure(self, name: str, network: Network) -> float | Failure:
        found: dict[str, float] = self.milliseconds  # type: ignore[attr-defined]
        return found.get(name) or Failure(name, "has an operator without a kernel")


@pytest.mark.parametrize(("limit", "names"), [(3.0, ["wide", "narrow"]), (9.0, ["deep", "wide"])])
def test_latency_is_measured_from_the_best_on_until_there_are_enough(
    bench: Bench, limit: float, names: list[str]
) -> None:
    milliseconds = {"deep": 8.0, "wide": 2.0, "narrow": 1.0}
    with RankLedger(None, {}, {}) as ledger:
        found = rank(
            measurer_of(bench, CANDIDATES),
            Settings(by=SIGNALS["macs"], top=2, max_latency=limit),
            engine=Counting(),
            ledger=ledger,
            stage=silent,
            latency=Known(milliseconds),
        )
    assert [each.name for each in found.best] == names
    assert [each.latency_ms for each in found.best] == [milliseconds[name] for name in names]


def test_rows_without_a_value_are_kept(tmp_path: Path) -> None:
    row = KeptRow(
        candidate="a", network="n", signal="loss", scheme="w4a4", on="val", images=5, finetuning_seconds=0.0,
        value=None, seconds=0.1,
    )  # fmt: skip
    with RankLedger(tmp_path, {}, {}) as ledger:
        ledger.add([row])
    with RankLedger(tmp_path, {}, {}) as ledger:
        assert ledger["n", "loss", "w4a4", "val", Budget(5)] == row


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"top": 0}, "--top is 0"), ({"budget": Budget(0)}, "--images is 0"), ({"max_latency": -1.0}, "--max-latency")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(GhnqError, match=said):
        Settings(by=SIGNALS["macs"], **settings)  # type: ignore[arg-type]
