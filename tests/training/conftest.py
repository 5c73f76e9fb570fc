"""A recipe so small that a run takes seconds."""

from typing import Any

import pytest

from ghnq.training.recipe import Recipe, validate_recipe

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": "digits",
    "hypernet": {"hidden": 8, "max_shape": [16, 16, 3, 3]},
    "steps": 6,
    "meta_batch": 2,
    "batch_size": 8,
    "reuse": 2,
    "ema": 0.9,
    "schedule": {"warmup": 2},
    "validation": {"every": 4, "architectures": 2, "images": 40, "calibration": 40},
    "save_every": 2,
    "log_every": 1,
    "workers": 1,
}


@pytest.fixture
def tiny() -> Recipe:
    return validate_recipe(TINY, "tiny")
