"""Runs that start from a checkpoint: its weights and hypernetwork, resumed without it, refused where it misfits."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from ghnq.errors import CheckpointError, GhnqWarning, RecipeError
from ghnq.graph import trace
from ghnq.hypernet import GHN, GHNConfig
from ghnq.runs.state_files import STATE
from ghnq.training.recipe import Recipe, validate_recipe
from ghnq.training.run.loop import train
from tests.training.conftest import TINY


def recipe_from(init: Path, **changes: object) -> Recipe:
    return validate_recipe({k: v for k, v in TINY.items() if k != "hypernet"} | {"init": str(init)} | changes, "test")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    GHN(GHNConfig(hidden=8, max_shape=(12, 12, 3, 3), encoder="mlp")).save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_first_step_is_from_the_checkpoints_weights(checkpoint: Path, tmp_path: Path, ema: float) -> None:
    train(recipe_from(checkpoint, steps=1, ema=ema, optimizer={"lr": 1e-9}), out=tmp_path / "run")
    start, end = GHN.from_pretrained(checkpoint), GHN.from_pretrained(tmp_path / "run" / "last")
    assert end.config == start.config
    for key, tensor in start.state_dict().items():
        torch.testing.assert_close(end.state_dict()[key], tensor, rtol=0, atol=1e-7)


def test_a_resumed_run_needs_its_checkpoint_no_more(checkpoint: Path, tmp_path: Path) -> None:
    recipe = recipe_from(checkpoint)
    train(recipe, out=tmp_path / "run")
    assert (tmp_path / "run" / STATE).exists()
    shutil.rmtree(checkpoint)
    train(recipe, out=tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train(recipe, out=tmp_path / "other")


def test_the_checkpoint_decides_and_says_so(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.warns(GhnqWarning, match=r"hypernet.hidden is 8, not 16$"):
        train(recipe_from(checkpoint, steps=1, hypernet={"hidden": 16, "encoder": "mlp"}), out=tmp_path / "run")
    assert GHN.from_pretrained(tmp_path / "run" / "last").config == GHN.from_pretrained(checkpoint).config


def test_a_condition_can_be_added_and_learns(
    checkpoint: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    told: dict[str, object] = {"hypernet": {"condition": True}, "quantization": {"mix": {"w4a4": 1, "float32": 1}}}
    train(recipe_from(checkpoint, steps=1, ema=0, optimizer={"lr": 1e-12}, **told), out=tmp_path / "same")
    start, same = GHN.from_pretrained(checkpoint), GHN.from_pretrained(tmp_path / "same" / "last")
    assert same.config == start.config.model_copy(update={"condition": True})
    for key, tensor in start.state_dict().items():
        torch.testing.assert_close(same.state_dict()[key], tensor, rtol=0, atol=1e-9)
    train(recipe_from(checkpoint, steps=3, ema=0, **told), out=tmp_path / "told")
    assert not recwarn.list
    precision = GHN.from_pretrained(tmp_path / "told" / "last").precision
    assert precision is not None
    assert bool(precision.outer.weight.any())


def test_channel_factors_can_be_added_and_learn(
    checkpoint: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    wider: dict[str, object] = {"hypernet": {"channel_rank": 16}}
    train(recipe_from(checkpoint, steps=1, ema=0.9, optimizer={"lr": 1e-12}, **wider), out=tmp_path / "same")
    start, same = GHN.from_pretrained(checkpoint), GHN.from_pretrained(tmp_path / "same" / "last")
    assert (start.config.channel_rank, same.config.channel_rank) == (0, 16)
    assert same.config == start.config.model_copy(update={"channel_rank": 16})
    for key, tensor in start.state_dict().items():
        torch.testing.assert_close(same.state_dict()[key], tensor, rtol=0, atol=1e-9)
    assert not recwarn.list
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 30, 3), nn.Flatten(), nn.Linear(480, 10))
    graph = trace(module, (1, 8, 8))
    before, after = start.predict(graph), same.predict(graph)
    assert torch.equal(after["0.weight"], before["0.weight"])  # not wider than max_shape: no factors
    difference = (after["2.weight"] - before["2.weight"]).norm() / before["2.weight"].norm()
    assert 0 < float(difference) < 0.3
    assert len(before["2.weight"].detach().unique(dim=0)) == 12
    assert len(after["2.weight"].detach().unique(dim=0)) == 30

    train(recipe_from(checkpoint, steps=2, ema=0, **wider), out=tmp_path / "learned")
    learned = GHN.from_pretrained(tmp_path / "learned" / "last").state_dict()
    new = sorted(learned.keys() - start.state_dict().keys())
    assert new
    assert any(not torch.equal(learned[key], same.state_dict()[key]) for key in new)


def test_data_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    GHN(GHNConfig(hidden=8, max_shape=(12, 12, 3, 3), num_classes=7)).save_pretrained(tmp_path / "seven")
    with pytest.raises(RecipeError, match="predicts networks for 7 classes, but 'digits' has 10"):
        train(recipe_from(tmp_path / "seven"), out=tmp_path / "run")
