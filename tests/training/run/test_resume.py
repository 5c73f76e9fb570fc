"""Resuming with another recipe: refused, or, with --override, recorded and carried out; what cannot change is named."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ghnq.data import ImageDataset, load
from ghnq.errors import CheckpointError, TrainingError
from ghnq.hypernet import GHN, GHNConfig, Task
from ghnq.runs.state_files import STATE
from ghnq.runs.tensor_file import write_tensors
from ghnq.training import Recipe
from ghnq.training.recipe import validate_recipe
from ghnq.training.run import loop as loop_module
from ghnq.training.run.state import FORMAT, load_last_state, read_state
from tests.training.conftest import TINY
from tests.training.runs import assert_same_run, go, go_until, log


def changed(**changes: Any) -> Recipe:
    return validate_recipe({**TINY, **changes}, "changed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    go(changed(), out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_change_is_refused_with_every_key_and_both_values(run: Path) -> None:
    recipe = changed(batch_size=4, optimizer={"lr": 0.01}, steps=9)
    message = (
        r"changed: batch_size \(was 8, now 4\), optimizer\.lr \(was 0\.001, now 0\.01\), steps \(was 6, now 9\)"
        r"\. Add --override"
    )
    with pytest.raises(TrainingError, match=message):
        go(recipe, run, resume=True)


def test_an_override_trains_with_the_new_values_and_is_recorded_once(run: Path) -> None:
    recipe = changed(steps=8, optimizer={"lr": 0.01}, schedule={"name": "constant", "warmup": 0}, ema=0.0)
    go(recipe, run, resume=True, override=True)
    lines = log(run)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 9))
    assert lines[-2]["lr"] == 0.01
    [note] = [line for line in lines if "override" in line]
    assert note == {
        "step": 6,
        "override": {
            "ema": [0.9, 0.0],
            "optimizer.lr": [0.001, 0.01],
            "schedule.name": ["cosine", "constant"],
            "schedule.warmup": [2, 0],
            "steps": [6, 8],
        },
    }
    go(recipe, run, resume=True)  # the new recipe is now the run's own
    assert log(run) == lines


def test_an_override_is_in_the_state_before_the_first_step(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module.Trainer, "step", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go(changed(steps=8), run, resume=True, override=True)
    assert json.loads(load_last_state(run).recipe)["steps"] == 8


def test_an_average_that_begins_with_an_override_begins_at_the_weights(tmp_path: Path) -> None:
    go(changed(ema=0.0), tmp_path)
    weights = {k: v for k, v in load_last_state(tmp_path).tensors.items() if k.startswith("weights.")}
    go(changed(ema=0.9), tmp_path, resume=True, override=True)
    state = load_last_state(tmp_path).tensors
    assert all(torch.equal(state[k.replace("weights.", "average.")], v) for k, v in weights.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hypernet": {"hidden": 16, "max_shape": [16, 16, 3, 3]}}, r"hypernet\.hidden \(was 8, now 16\): the weights"),
        ({"seed": 3}, r"seed \(was 0, now 3\): images held out"),
        ({"validation": {**TINY["validation"], "images": 50}}, r"validation\.images \(was 40, now 50\): images held"),
        ({"init": "digits"}, r"init \(was None, now 'digits'\): the run has started"),
        ({"image_size": 12}, r"images of shape \(1, 8, 8\) in 10 classes; 'digits' has shape \(1, 12, 12\)"),
    ],
)
def test_what_cannot_change_is_named(run: Path, change: dict[str, Any], message: str) -> None:
    before = (run / STATE).read_bytes()
    with pytest.raises(TrainingError, match=message):
        go(changed(**change), run, resume=True, override=True)
    assert (run / STATE).read_bytes() == before


def test_data_with_other_classes_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load("digits")
    few = digits.train.take(torch.nonzero(digits.train.labels < 7).flatten())
    test = digits.test.take(torch.nonzero(digits.test.labels < 7).flatten())
    seven = ImageDataset.build("seven", few, test, digits.class_names[:7], flip=False)
    monkeypatch.setattr(loop_module, "load", lambda *_, **__: seven)
    with pytest.raises(TrainingError, match=r"in 10 classes; 'seven' has shape \(1, 8, 8\) and 7 classes"):
        go(changed(data="seven"), run, resume=True, override=True)


def test_other_images_under_the_same_name_are_noticed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load("digits")
    dark = ImageDataset.build(
        "digits", type(digits.train)(digits.train.pixels // 2, digits.train.labels), digits.test, digits.class_names,
        flip=False,
    )  # fmt: skip
    monkeypatch.setattr(loop_module, "load", lambda *_, **__: dark)
    with pytest.raises(TrainingError, match="not those the run was started with"):
        go(changed(), run, resume=True)


def test_another_measure_makes_another_best(run: Path) -> None:
    assert load_last_state(run).progress.best > 0
    go(changed(validation={**TINY["validation"], "calibration": 30}), run, resume=True, override=True)
    assert load_last_state(run).progress.best != load_last_state(run).progress.best  # NaN: nothing was measured since


def test_override_without_resume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="add --resume"):
        go(changed(), tmp_path, override=True)


def test_a_recipe_of_another_version_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        loop_module,
        "load_last_state",
        lambda out: type(s := load_last_state(out))(s.path, '{"a": 1}', s.task, s.progress, {}),
    )
    with pytest.raises(CheckpointError, match="cannot read"):
        go(changed(), run, resume=True)


def test_the_checkpoint_stores_the_hash_of_all_images(tiny: Recipe, tmp_path: Path) -> None:
    """Also of those that are held out for validation, with which the images are measured on later."""
    go(tiny, tmp_path / "run")
    whole = load("digits").content_hash
    for name in ("best", "last"):
        task = GHN.from_pretrained(tmp_path / "run" / name).task
        assert task is not None
        assert task.data_sha256 == whole
        assert json.loads((tmp_path / "run" / name / "config.json").read_text())["task"]["data_sha256"] == whole
    assert read_state(tmp_path / "run" / STATE).task.data_sha256 == whole


def test_a_run_of_a_version_that_stored_no_hash_resumes(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_until(tiny, tmp_path / "run", 3, monkeypatch)
    path = tmp_path / "run" / STATE
    state = read_state(path)
    write_tensors(
        path,
        state.tensors,
        {
            "format": FORMAT,
            "progress": json.dumps(asdict(state.progress)),
            "recipe": state.recipe,
            "task": state.task.model_dump_json(exclude={"data_sha256"}),
        },
    )
    assert read_state(path).task.data_sha256 is None
    go(tiny, tmp_path / "run", resume=True)
    go(tiny, tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    task = GHN.from_pretrained(tmp_path / "run" / "last").task
    assert task is not None
    assert task.data_sha256 == load("digits").content_hash


def test_a_task_without_a_hash_is_written_as_before(tmp_path: Path) -> None:
    task = Task(data="digits", image_shape=(1, 8, 8), mean=(0.3,), std=(0.4,))
    GHN(GHNConfig(hidden=8, max_shape=(8, 8, 3, 3)), task=task).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())["task"]
    assert written == {
        "data": "digits", "image_shape": [1, 8, 8], "mean": [0.3], "std": [0.4], "space": "convnets",
    }  # fmt: skip
