"""Rows that a benchmark keeps belong to one checkpoint, which its name does not tell from an older one."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ghnq
from ghnq.cli import app
from ghnq.evaluation.provenance import weights_hash
from ghnq.finetune.rate import rate_of_predicted
from ghnq.hypernet import GHN

OLD = {"start": "predicted", "checkpoint": "digits", "checkpoint_sha256": "0" * 64}


@pytest.fixture
def benchmark(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "path", [str(repo_root / "benchmarks"), *sys.path])
    names = runpy.run_path(str(repo_root / "benchmarks" / "start_tables.py"))
    return names | runpy.run_path(str(repo_root / "benchmarks" / "finetune_start.py"))


def test_rows_of_another_checkpoint_are_neither_done_nor_shown(
    benchmark: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = OLD | {"checkpoint_sha256": weights_hash(GHN.from_pretrained("digits"))}
    without = {name: value for name, value in OLD.items() if name != "checkpoint_sha256"}
    assert [benchmark["is_of"](row, own["checkpoint_sha256"]) for row in (own, OLD, without)] == [True, False, False]
    cell = {"epochs": 1.0, "seed": 0, "scheme": "w4a8", "architecture": "convnets/test/8", "lr": 0.0, "images": 99}
    rows: list[dict[str, Any]] = [
        cell | OLD | {"test": 11.0, "val": 1.0},
        cell | own | {"test": 55.0, "val": 1.0},
        cell | {"start": "kaiming", "checkpoint": "cifar10", "test": 33.0, "val": 1.0},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len({benchmark["key"](row) for row in benchmark["read_rows"](tmp_path / "rows.jsonl")[:2]}) == 1
    benchmark["main"]("digits", "digits", tmp_path, table=True)
    printed = capsys.readouterr().out
    assert "55.0 / 33.0, +22.0 ± 1.5" in printed  # 2,000 test images, as rows without their number have
    assert "11.0" not in printed


def test_errors_are_those_of_seeds_and_of_test_images_and_the_savings_are_read_off(benchmark: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = []
    for epochs, predicted, kaiming in ((1.0, (60.0, 64.0), (30.0, 30.0)), (5.0, (70.0,), (62.0, 80.0))):
        cell = {"epochs": epochs, "scheme": "w4a4", "architecture": "convnets/val/1", "images": 9, "test_images": 1000}
        for start, accuracies in (("predicted", predicted), ("kaiming", kaiming)):
            for seed, test in enumerate(accuracies):
                rows.append(cell | {"start": start, "rate": "auto", "seed": seed, "test": test, "val": 5.0})
                # Another rate is taken where it is better on held-out images, not on test images.
                rows.append(rows[-1] | {"rate": "0.1", "test": 99.0, "val": 4.0})
    (group,) = benchmark["comparisons"](rows, "predicted").items()
    assert group[0] == ("w4a4", 9, "val/1", 1000)
    one, five = group[1][1.0], group[1][5.0]
    assert (one.predicted, one.kaiming, one.seeds) == (62.0, 30.0, 2)
    assert one.error == pytest.approx(math.sqrt((2.0**2 + 2.0**2) / 1 / 2 + (62 * 38 + 30 * 70) / 1000))
    assert (five.predicted, five.kaiming, five.seeds) == (70.0, 62.0, 1)  # the seeds that both have
    assert benchmark["needed"](group[1]) == "≤ 5"
    assert benchmark["needed"]({1.0: one}) == "> 1"
    assert benchmark["needed"]({5.0: five}) == ""


def test_rates_are_searched_with_the_first_seed_alone(benchmark: dict[str, Any], tmp_path: Path) -> None:
    arguments = {"images": 300, "test_images": 20, "schemes": "float32", "epochs": "0.5"}
    for rates in ("0.001,0.1", "0.001"):  # a second call trains nothing
        benchmark["main"]("digits", "digits", tmp_path, architectures="convnets/test/17", rates=rates, **arguments)
    rows = benchmark["read_rows"](tmp_path / "rows.jsonl")
    first = {(row["start"], row["rate"]): row["val"] for row in rows if row["seed"] == 0}
    later = {row["start"]: row["rate"] for row in rows if row["seed"] == 1}
    assert len(first) == 4
    assert len(rows) == 6
    for start, rate in later.items():
        assert first[start, rate] == max(first[start, "0.001"], first[start, "0.1"])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["float32", "w4a4"])
def test_the_benchmark_trains_as_the_command_does(benchmark: dict[str, Any], tmp_path: Path, scheme: str) -> None:
    model = "convnets/test/17"
    words = ["finetune", model, "--data", "digits", "--scheme", scheme, "--epochs", "2", "--init", "digits"]
    done = CliRunner().invoke(app, [*words, "--seed", "1", "--out", str(tmp_path / "run"), "--json"])
    result = json.loads(done.stdout)
    trainings = benchmark["Trainings"](GHN.from_pretrained("digits"), ghnq.load_dataset("digits", image_size=16))
    cell = benchmark["Cell"](2.0, 1, scheme, model, "predicted", "auto")
    row = trainings.row(cell)
    assert (row["found_lr"], row["test"], row["val"]) == (result["lr"], result["after"][scheme], result["val"])
    assert row["found_lr"] == rate_of_predicted(result["steps"], 128)
    assert trainings.row(cell) | {"seconds": 0} == row | {"seconds": 0}  # from the initial weights again


@pytest.mark.slow
def test_transfer_measures_a_row_of_another_checkpoint_again(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [str(repo_root / "benchmarks"), *sys.path])
    main = runpy.run_path(str(repo_root / "benchmarks" / "transfer.py"))["main"]
    out = tmp_path / "rows.json"
    words: dict[str, Any] = {"data": "digits", "networks": "convnets/test/5", "epochs": "0", "images": 40, "out": out}
    main("digits", **words)
    first = json.loads(out.read_text())
    assert [row["start"] for row in first] == ["transferred", "kaiming_solved", "kaiming"]
    out.write_text(json.dumps([row | ({"checkpoint_sha256": "0"} if "checkpoint" in row else {}) for row in first]))
    main("digits", **words)
    again = json.loads(out.read_text())
    assert again[3:] == [first[0]]
    main("digits", **words)
    assert json.loads(out.read_text()) == again
