"""The statistics of the benchmarks of ranking and search, against independent computations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import kendalltau


@pytest.fixture
def benchmarks(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the modules of the folder importable, and forgets them afterwards."""
    monkeypatch.syspath_prepend(str(repo_root / "benchmarks"))
    for name in list(sys.modules):
        if name.startswith("ranking_") or name in ("named", "search_samplers"):
            monkeypatch.delitem(sys.modules, name)
    return repo_root / "benchmarks"


def loaded(name: str) -> ModuleType:
    import importlib

    return importlib.import_module(name)


def test_tau_is_kendalls_tau_b(benchmarks: Path) -> None:
    statistics = loaded("ranking_statistics")
    generator = np.random.default_rng(5)
    groups = np.array(["2M"] * 14 + ["3M"] * 11 + ["named"] * 8)
    values, target = generator.integers(0, 9, 33).astype(float), generator.integers(0, 9, 33).astype(float)
    values[3] = np.nan  # a signal that a network does not have
    known = ~np.isnan(values)
    signs = statistics.signs_of(values)
    over_all = statistics.Comparison(signs, target, groups, "all")
    assert over_all.tau() == pytest.approx(kendalltau(values[known], target[known]).statistic, abs=1e-12)
    named = statistics.Comparison(signs, target, groups, "named")
    assert named.tau() == pytest.approx(kendalltau(values[-8:], target[-8:]).statistic, abs=1e-12)
    low, high = over_all.interval()
    assert low < over_all.tau() < high


def test_within_a_budget_only_pairs_of_one_class_count(benchmarks: Path) -> None:
    statistics = loaded("ranking_statistics")
    target = np.array([1.0, 2, 3, 101, 102, 103])
    groups = np.array(["2M"] * 3 + ["3M"] * 3)
    reversed_within = np.array([3.0, 2, 1, 103, 102, 101])
    assert statistics.Comparison(statistics.signs_of(reversed_within), target, groups, "within").tau() == -1
    assert statistics.Comparison(statistics.signs_of(reversed_within), target, groups, "all").tau() == pytest.approx(
        (9 - 6) / 15
    )
    # One of three is right in the first class, and two of three in the second: 3 right, 3 wrong.
    mixed = np.array([3.0, 1, 2, 101, 103, 102])
    assert statistics.Comparison(statistics.signs_of(mixed), target, groups, "within").tau() == pytest.approx(
        (1 - 2 + 2 - 1) / 6
    )


def test_the_loss_of_the_first_five_is_a_mean_over_classes(benchmarks: Path) -> None:
    statistics = loaded("ranking_statistics")
    target = np.arange(12.0)
    groups = np.array(["2M"] * 6 + ["3M"] * 6)
    forwards, backwards = statistics.signs_of(target), statistics.signs_of(-target)
    assert statistics.Comparison(backwards, target, groups, "within").lost() == 1  # the sixth of six is the best
    assert statistics.Comparison(backwards, target, groups, "all").lost() == 11 - 4
    assert statistics.Comparison(forwards, target, groups, "within").lost() == 0


def test_two_networks_are_not_in_the_fit_that_compares_them(benchmarks: Path) -> None:
    statistics = loaded("ranking_statistics")
    generator = np.random.default_rng(1)
    columns = generator.normal(size=(30, 2)) * [1, 1000]
    target = columns @ [2, -0.003] + 7
    assert statistics.fit(columns, target) == pytest.approx([2, -0.003], rel=0.1)
    before = statistics.signs_of_fits(columns, target)
    assert (before == -before.T).all()
    assert (before == np.sign(target[:, None] - target)).mean() > 0.97
    moved = target.copy()
    moved[4] += 1000
    moved[9] -= 1000
    assert statistics.signs_of_fits(columns, moved)[4, 9] == before[4, 9]
    missing = columns.copy()
    missing[7, 1] = np.nan
    assert np.flatnonzero(np.isnan(np.diag(statistics.signs_of_fits(missing, target)))).tolist() == [7]


def test_a_fit_of_noise_orders_nothing(benchmarks: Path) -> None:
    statistics = loaded("ranking_statistics")
    generator, groups, taus = np.random.default_rng(2), np.array(["2M"] * 16), []
    for _ in range(60):
        columns, target = generator.normal(size=(16, 2)), generator.normal(size=16)
        taus.append(statistics.Comparison(statistics.signs_of_fits(columns, target), target, groups, "all").tau())
    assert abs(np.mean(taus)) < 0.1  # leaving out one network only gives about -0.3


def test_classes_are_budgets_and_any_beginning_has_all(benchmarks: Path) -> None:
    networks = loaded("ranking_networks")
    study = networks.study()
    assert len({word for _, word in study}) == len(study) == 100
    for count, named in ((9, 1), (45, 5), (90, 10), (100, 20)):
        groups = [group for group, _ in study[:count]]
        assert groups.count("2M") == groups.count("3M") == (count - named) // 2
    for least, most in networks.CLASSES.values():
        assert most == 1.25 * least


def test_the_hypervolume_is_the_dominated_share(benchmarks: Path) -> None:
    samplers = loaded("search_samplers")
    points = [tuple(point) for point in np.random.default_rng(3).random((12, 2))]
    grid = (np.arange(400) + 0.5) / 400
    dominated = np.zeros((400, 400), bool)
    for cost, gain in points:
        dominated |= (grid[:, None] >= cost) & (grid[None] <= gain)
    assert samplers.hypervolume(points) == pytest.approx(dominated.mean(), abs=0.01)
    assert samplers.hypervolume([]) == 0
    assert samplers.hypervolume([(0.0, 1.0)]) == 1
    least, most = samplers.LEAST, samplers.MAX_MACS
    rows = [{"multiply_adds": least, "accuracy": 55.0}, {"multiply_adds": most, "accuracy": 100.0}]
    assert samplers.curve(rows) == pytest.approx([0.5, 0.5])


def test_rows_of_ledgers_are_read_without_their_first_line(benchmarks: Path, tmp_path: Path) -> None:
    lines = [{"study": "x"}, {"machine": {}}, {"network": "a", "stage": "half"}, {"network": "a", "stage": "w4a4"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    study = loaded("ranking_study")
    assert list(study.trained(study.read_rows(tmp_path / "rows.jsonl"))) == ["a"]


def test_predictions_of_several_checkpoints_are_averaged(benchmarks: Path) -> None:
    study = loaded("ranking_study")
    truth = [
        {"network": word, "class": "2M", "stage": stage, "accuracy": 60.0, "quantized": {"float32": 60, "w4a4": 55}}
        for word in ("a", "b")
        for stage in ("half", "float", "w4a4")
    ]
    names = ("accuracy", "loss", "accuracy_500", "loss_500", "float_accuracy")
    signals = [
        {
            "network": word, "measure": "predicted", "checkpoint_sha256": checkpoint, "cpu_seconds": 1.5,
            "values": dict.fromkeys(names, value),
        }
        for checkpoint, values in (("old", (10.0, None)), ("new", (20.0, 40.0)))
        for word, value in zip(("a", "b"), values, strict=True)
    ]  # fmt: skip
    found = study.Study(truth, signals)
    assert found.checkpoint == "new"
    assert found.signals["accuracy, 2,000 images"].tolist() == [20, 40]
    mean = found.signals["accuracy, 2,000 images, mean of 2 checkpoints"]
    assert mean[0] == 15
    assert np.isnan(mean[1])  # where one has no value there is no mean
    assert found.seconds["loss, 2,000 images, mean of 2 checkpoints"] == 3
    assert "accuracy, 2,000 images, mean of 2 checkpoints" not in study.Study(truth, signals[2:]).signals
