"""Whole runs: identical after resuming, nothing lost, everything refused that should be."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from ghnq.errors import CheckpointError, RecipeError, TrainingError
from ghnq.hypernet.model import GHN
from ghnq.runs.state_files import STATE
from ghnq.training import Recipe, train
from ghnq.training.recipe import Quantization, validate_recipe
from ghnq.training.run import trainer as trainer_module
from tests.training.conftest import TINY
from tests.training.runs import assert_same_run, die_and_resume, go, log, losses


def test_a_run_leaves_what_it_promises(tiny: Recipe, tmp_path: Path) -> None:
    best = go(tiny, tmp_path / "run")
    assert best == tmp_path / "run" / "best"
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "best", "last", STATE, "recipe.yaml", "log.jsonl", "tensorboard",
    }  # fmt: skip
    ghn = GHN.from_pretrained(best)
    assert ghn.task is not None
    assert (ghn.task.data, ghn.task.image_shape, ghn.config.num_classes) == ("digits", (1, 8, 8), 10)
    steps = [line["step"] for line in log(tmp_path / "run") if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in log(tmp_path / "run") if "val/accuracy" in line] == [4, 6]
    assert not list((tmp_path / "run").glob(".*.tmp*"))


def test_two_runs_are_the_same_to_the_bit(tiny: Recipe, tmp_path: Path) -> None:
    go(tiny, tmp_path / "a")
    go(tiny, tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("strategy", [None, "round", "noise"])
def test_a_resumed_run_is_the_uninterrupted_run(
    strategy: str | None, tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if strategy:
        quantization = Quantization.model_validate({"mix": {"w4a4": 1, "mixed": 2}, "strategy": strategy})
        hypernet = tiny.hypernet.model_copy(update={"condition": True})
        tiny = tiny.model_copy(update={"quantization": quantization, "hypernet": hypernet})
    go(tiny, tmp_path / "whole")
    die_and_resume(tiny, tmp_path / "parts", at_step=5, monkeypatch=monkeypatch)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_steps_that_are_not_finite_are_skipped_counted_and_reported(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer_module.accumulate_gradients
    before: list[torch.Tensor] = []

    def poisoned(ghn: GHN, *arguments: Any, **options: Any) -> Any:
        result_of_step = real(ghn, *arguments, **options)
        if len(before) == 2:
            next(iter(ghn.parameters())).grad.fill_(math.nan)  # type: ignore[union-attr]
        before.append(ghn.embed.op.weight.detach().clone())
        return result_of_step

    monkeypatch.setattr(trainer_module, "accumulate_gradients", poisoned)
    console = Console(file=io.StringIO(), width=200)
    train(tiny, out=tmp_path / "run", console=console)
    assert torch.equal(before[3], before[2])
    assert not torch.equal(before[4], before[3])
    assert log(tmp_path / "run")[-2]["skipped"] == 1
    assert "1 steps were not finite" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_that_stays_not_finite_ends(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "MAX_SKIPPED", 3)
    real = trainer_module.accumulate_gradients

    def poisoned(ghn: GHN, *arguments: Any, **options: Any) -> Any:
        result_of_step = real(ghn, *arguments, **options)
        next(iter(ghn.parameters())).grad.fill_(math.inf)  # type: ignore[union-attr]
        return result_of_step

    monkeypatch.setattr(trainer_module, "accumulate_gradients", poisoned)
    with pytest.raises(TrainingError, match="3 steps in a row"):
        go(tiny, tmp_path / "run")


def test_a_changed_recipe_is_not_resumed(tiny: Recipe, tmp_path: Path) -> None:
    go(tiny, tmp_path / "run")
    changed = validate_recipe({**TINY, "seed": 7}, "x")
    with pytest.raises(TrainingError, match=r"changed: seed \(was 0, now 7\). Add --override"):
        go(changed, tmp_path / "run", resume=True)


def test_a_run_is_not_overwritten(tiny: Recipe, tmp_path: Path) -> None:
    go(tiny, tmp_path / "run")
    with pytest.raises(TrainingError, match="already holds a run"):
        go(tiny, tmp_path / "run")


def test_nothing_to_resume_is_told(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without --resume"):
        go(tiny, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_more_validation_images_than_there_are(tmp_path: Path) -> None:
    recipe = validate_recipe({**TINY, "validation": {"images": 1000}}, "x")
    with pytest.raises(TrainingError, match="more than half"):
        go(recipe, tmp_path / "run")


def test_minutes_end_a_run(tmp_path: Path) -> None:
    recipe = validate_recipe({**TINY, "steps": 100_000, "max_minutes": 0.02}, "x")
    go(recipe, tmp_path / "run")
    steps = losses(tmp_path / "run")
    assert 1 <= len(steps) < 1000
    rates = [line["lr"] for line in log(tmp_path / "run") if "lr" in line]
    assert rates[-1] < 0.1 * max(rates)  # the schedule ran to its end with the time
    with pytest.raises(TrainingError, match="above 0"):
        go(recipe, tmp_path / "other", max_minutes=-1)


def test_a_recipe_error_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError):
        validate_recipe({}, "nothing")
