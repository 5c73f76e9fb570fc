"""The easier beginning: which networks it draws, what it does to images, when it ends, and what it leaves alone."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from ghnq.errors import RecipeError
from ghnq.spaces import convnets
from ghnq.training.networks import step as step_module
from ghnq.training.networks.architecture_stream import _INDEX_STRIDE, ArchitectureStream
from ghnq.training.recipe import Curriculum, validate_recipe
from ghnq.training.run import trainer as trainer_module
from tests.training.conftest import TINY
from tests.training.runs import assert_same_run, die_and_resume, go, losses

MOST = 2e6
EASY = Curriculum(steps=4, multiply_adds=MOST)


def stream(curriculum: Curriculum = EASY, **place: int) -> ArchitectureStream:
    return ArchitectureStream(
        size=3, seed=0, reuse=2, input_shape=(3, 32, 32), num_classes=10, curriculum=curriculum, **place
    )


def multiply_adds(index: int) -> int:
    return convnets.cost(convnets.spec("train", index)).multiply_adds


def test_dear_networks_wait_until_it_ends() -> None:
    easy, plain = stream(), stream(Curriculum())
    for step in range(8):
        drawn, all_ = easy.indices(step), plain.indices(step)
        if step >= 4:
            assert drawn == all_
        for index, instead_of in zip(drawn, all_, strict=True):
            if step < 4:
                assert multiply_adds(index) <= MOST
                assert index == instead_of or multiply_adds(instead_of) > MOST
    assert any(multiply_adds(i) > MOST for step in range(4) for i in plain.indices(step))


@pytest.mark.parametrize("family", ["stages", "cells"])
@pytest.mark.parametrize("stride", [1, 2])
def test_only_some_kinds_of_networks(family: Literal["stages", "cells"], stride: Literal[1, 2]) -> None:
    narrow = stream(Curriculum(steps=3, family=family, stem_stride=stride))
    drawn = [convnets.spec("train", index) for step in range(3) for index in narrow.indices(step)]
    assert {(spec.body.family, spec.stem.stride) for spec in drawn} == {(family, stride)}
    after = [convnets.spec("train", index) for step in range(3, 20) for index in narrow.indices(step)]
    assert {(spec.body.family, spec.stem.stride) for spec in after} - {(family, stride)}


def test_every_member_can_follow_every_other() -> None:
    assert gcd(_INDEX_STRIDE, convnets.SPLITS["train"]) == 1


def test_every_process_draws_the_same() -> None:
    parts = [stream(rank=rank, world_size=2) for rank in range(2)]
    for step in range(6):
        assert parts[0].indices(step) == parts[1].indices(step) == stream().indices(step)


def test_images_are_shrunk_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    run_network = step_module.run_network

    def spy(module: object, parameters: object, images: Tensor, *rest: object, **options: object) -> object:
        seen.append(tuple(images.shape))
        return run_network(module, parameters, images, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(step_module, "run_network", spy)
    recipe = validate_recipe(
        {**TINY, "steps": 3, "image_size": 16, "curriculum": {"steps": 2, "image_size": 8}}, "small"
    )
    go(recipe, tmp_path / "run")
    per_step = [8, 8, 16]
    assert [shape[2:] for shape in seen] == [(s, s) for s in per_step for _ in range(recipe.meta_batch)]


def test_shrinking_averages() -> None:
    """Equal neighbours stay as they are; a fine pattern becomes its mean."""
    flat = torch.ones(2, 3, 16, 16) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).float().expand(2, 3, 16, 16)
    recipe = validate_recipe({**TINY, "curriculum": {"steps": 1, "image_size": 8}}, "small")
    trainer = trainer_module.Trainer.__new__(trainer_module.Trainer)
    trainer.recipe = recipe
    small = trainer.prepare_images((flat, board), 0, (0, 1))
    torch.testing.assert_close(small[0], flat[..., :8, :8])
    torch.testing.assert_close(small[1][..., 1:-1, 1:-1], torch.full((2, 3, 6, 6), 0.5))
    assert trainer.prepare_images((flat,), 1, (0,))[0] is flat


def test_a_run_resumes_through_it_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    easy = {"steps": 4, "image_size": 8, "multiply_adds": 1.5e6}
    recipe = validate_recipe({**TINY, "curriculum": easy}, "easy")
    go(recipe, tmp_path / "a")
    die_and_resume(recipe, tmp_path / "b", at_step=3, monkeypatch=monkeypatch)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    go(validate_recipe(TINY, "plain"), tmp_path / "c")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


@pytest.mark.parametrize(
    "wrong", [{"image_size": 4}, {"multiply_adds": 10}, {"family": "cell"}, {"steps": -1}, {"size": 16}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="curriculum"):
        validate_recipe({**TINY, "curriculum": wrong}, "wrong")
