"""Runs that start from a checkpoint: its weights and hypernetwork, resumed without it, refused where it misfits."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from ghnq.errors import CheckpointError, GhnqWarning
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


@pytest.mark.parametrize("depthwise", ["own", "shared"])
def test_a_wider_decoder_predicts_the_same_and_learns(
    tmp_path: Path, depthwise: str, recwarn: pytest.WarningsRecorder
) -> None:
    torch.manual_seed(5)
    old = GHN(GHNConfig(hidden=8, max_shape=(12, 12, 3, 3), encoder="mlp", depthwise=depthwise))  # type: ignore[arg-type]
    old.save_pretrained(tmp_path / "old")
    wider: dict[str, object] = {"hypernet": {"decoder_hidden": [32, 80]}}
    train(recipe_from(tmp_path / "old", steps=1, ema=0, optimizer={"lr": 1e-12}, **wider), out=tmp_path / "same")
    same = GHN.from_pretrained(tmp_path / "same" / "last")
    assert same.config == old.config.model_copy(update={"decoder_hidden": (32, 80)})
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 30, 1), nn.ReLU(),
        nn.Conv2d(30, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip
    graph = trace(module, (1, 8, 8))
    before, after = old.predict(graph), same.predict(graph)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-5, atol=1e-6)
    assert not recwarn.list

    train(recipe_from(tmp_path / "old", steps=2, ema=0, **wider), out=tmp_path / "learned")
    learned = GHN.from_pretrained(tmp_path / "learned" / "last").state_dict()
    # What leads from new units to old ones was zero, and is learned.
    assert bool(learned["decoder.dense.matrix.weight"][:, 64:].any())
    assert not bool(same.state_dict()["decoder.dense.matrix.weight"][:, 64:].gt(1e-6).any())


def test_a_narrower_decoder_is_not_taken(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.warns(GhnqWarning, match=r"hypernet.decoder_hidden is None, not \(16, 128\)$"):
        train(recipe_from(checkpoint, steps=1, hypernet={"decoder_hidden": [16, 128]}), out=tmp_path / "run")
    assert GHN.from_pretrained(tmp_path / "run" / "last").config == GHN.from_pretrained(checkpoint).config


def test_for_another_number_of_classes_all_but_the_class_decoder_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(7)
    seven = GHN(GHNConfig(hidden=8, max_shape=(12, 12, 3, 3), num_classes=7))
    seven.save_pretrained(tmp_path / "seven")
    with pytest.warns(GhnqWarning, match="7 classes, 'digits' has 10: everything but the decoder"):
        train(recipe_from(tmp_path / "seven", steps=1, ema=0, optimizer={"lr": 1e-9}), out=tmp_path / "run")
    ten = GHN.from_pretrained(tmp_path / "run" / "last")
    assert ten.config == seven.config.model_copy(update={"num_classes": 10})
    shapes = {name: tensor.shape for name, tensor in seven.state_dict().items()}
    changed = {name for name, tensor in ten.state_dict().items() if tensor.shape != shapes[name]}
    assert changed == {f"{decoder}.classes.{name}" for decoder in ("decoder", "vectors") for name in ("weight", "bias")}
    # A network whose channel counts are not those of the classes has the same predicted body.
    module = nn.Sequential(nn.Conv2d(1, 24, 3), nn.BatchNorm2d(24), nn.Conv2d(24, 10, 3), nn.Conv2d(10, 3, 1))
    graph = trace(module, (1, 8, 8))
    before, after = seven.predict(graph), ten.predict(graph)
    for name in ("0.weight", "0.bias", "1.weight"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-6)
