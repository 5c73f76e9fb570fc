"""Random crops in training: every window of the image, the same in any process, whole images everywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ghnq.errors import TrainingError
from ghnq.training.networks import step as step_module
from ghnq.training.recipe import validate_recipe
from tests.training.conftest import TINY as SMALL
from tests.training.runs import die_and_resume, go, losses

TINY = {**SMALL, "image_size": 16}


def test_networks_are_trained_on_windows_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []
    run_network = step_module.run_network

    def record(module: object, parameters: object, images: Tensor, *rest: object, **options: object) -> object:
        sizes.append(tuple(images.shape[1:]))
        return run_network(module, parameters, images, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(step_module, "run_network", record)
    go(validate_recipe({**TINY, "crop": 12, "workers": 1}, "crops"), tmp_path / "run")
    assert set(sizes) == {(1, 12, 12)}


def test_a_run_with_crops_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = validate_recipe({**TINY, "crop": 10}, "crops")
    go(recipe, tmp_path / "whole")
    die_and_resume(recipe, tmp_path / "parts", at_step=3, monkeypatch=monkeypatch)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


@pytest.mark.slow
def test_crops_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for workers in (1, 2):
        go(validate_recipe({**TINY, "crop": 10, "workers": workers}, "crops"), tmp_path / str(workers))
    # The first steps: sums in another order grow apart later on.
    one, two = (torch.tensor(losses(tmp_path / str(workers))[:2]) for workers in (1, 2))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=0)


def test_a_crop_larger_than_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"crop is 20 pixels, but the images of 'digits' are 16 x 16"):
        go(validate_recipe({**TINY, "crop": 20}, "crops"), tmp_path / "run")
