"""Soft labels stay with their image, are what is trained towards, and are refused where they are of other images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ghnq.data import ImageDataset, load
from ghnq.errors import DataError, RecipeError
from ghnq.training.networks.soft_labels import save_soft_labels, with_soft_labels
from ghnq.training.recipe import validate_recipe
from ghnq.training.run.validation import split_validation
from tests.training.conftest import TINY
from tests.training.runs import go, losses


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load("digits")


def mark(pixels: torch.Tensor) -> torch.Tensor:
    """Probabilities that tell which image it is."""
    sums = pixels.flatten(1).float() @ torch.linspace(-1, 1, 64 * pixels.shape[1])[:, None]
    return torch.softmax(sums * torch.linspace(-0.01, 0.01, 10), 1)


def test_every_image_keeps_its_own(digits: ImageDataset, tmp_path: Path) -> None:
    save_soft_labels(mark(digits.train.pixels), digits, tmp_path / "soft.safetensors")
    dataset, _ = split_validation(with_soft_labels(digits, tmp_path / "soft.safetensors"), 100, seed=3)
    x, y = dataset.train_batch(7, 32, 0, augment=False)
    pixels = (x * dataset.std.view(-1, 1, 1) + dataset.mean.view(-1, 1, 1)).mul(255).round().to(torch.uint8)
    torch.testing.assert_close(y, mark(pixels), atol=1e-3, rtol=0)
    torch.testing.assert_close(y.sum(1), torch.ones(32))


def test_certain_labels_are_the_labels(digits: ImageDataset, tmp_path: Path) -> None:
    certain = F.one_hot(digits.train.labels, 10).float()
    save_soft_labels(certain, digits, tmp_path / "certain.safetensors")
    save_soft_labels(0.5 * certain + 0.05, digits, tmp_path / "doubt.safetensors")
    seen = {}
    for name in ("none", "certain", "doubt"):
        soft = {} if name == "none" else {"soft_labels": str(tmp_path / f"{name}.safetensors")}
        go(validate_recipe({**TINY, "steps": 3, **soft}, name), tmp_path / name)
        seen[name] = losses(tmp_path / name)
    torch.testing.assert_close(seen["certain"], seen["none"], rtol=1e-6, atol=0)
    assert seen["doubt"] != seen["none"]


def test_wrong_files_are_refused(digits: ImageDataset, tmp_path: Path) -> None:
    good, file = mark(digits.train.pixels), tmp_path / "soft.safetensors"
    with pytest.raises(RecipeError, match="cannot be read"):
        with_soft_labels(digits, tmp_path / "none.safetensors")
    file.write_bytes(b"nothing of this kind")
    with pytest.raises(RecipeError, match="cannot be read"):
        with_soft_labels(digits, file)
    save_file({"probabilities": good}, file)
    with pytest.raises(RecipeError, match="not made for the images of 'digits'"):
        with_soft_labels(digits, file)
    for wrong, part in ((good[:-1], "shape"), (2 * good, "sum to 1"), (-good, "sum to 1"), (good[:, :9], "shape")):
        save_soft_labels(wrong, digits, file)
        with pytest.raises(RecipeError, match=part):
            with_soft_labels(digits, file)
    with pytest.raises(DataError, match="Soft labels"):
        replace(digits.train, soft=good[1:])
