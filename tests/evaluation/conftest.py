"""A small hypernetwork, few images, and made-up rows."""

from __future__ import annotations

import pytest

from ghnq.data import ImageDataset
from ghnq.evaluation.rows import Row
from ghnq.hypernet import GHN
from tests.small_networks import small_digits, small_ghn


@pytest.fixture
def ghn() -> GHN:
    return small_ghn()


@pytest.fixture
def digits() -> ImageDataset:
    return small_digits()


def row(split: str = "test", index: int = 0, scheme: str = "float32", correct: int = 5, images: int = 10) -> Row:
    """A made-up row."""
    return Row(
        split=split,
        index=index,
        structure_hash=f"{index:064x}",
        scheme=scheme,
        protocol="deploy",
        correct=correct,
        images=images,
        nonfinite=0,
        parameters=1000 + index,
        multiply_adds=10**6,
    )


ABOUT = {
    "checkpoint": "made-up",
    "data": "nothing",
    "protocol": "deploy",
    "test_images": 10,
    "calibration_images": 512,
}
