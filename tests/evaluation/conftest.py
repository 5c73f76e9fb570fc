"""A small hypernetwork and few images, so that whole evaluations take a second."""

from __future__ import annotations

import pytest
import torch

from ghnq.data import ImageDataset, load
from ghnq.evaluation.measure import Row
from ghnq.hypernet import GHN, GHNConfig


def small_ghn(seed: int = 0) -> GHN:
    """An untrained hypernetwork; the same one in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GHN(GHNConfig(hidden=8, max_shape=(16, 16, 3, 3))).eval()


def small_digits(train: int = 60, test: int = 40) -> ImageDataset:
    """A few of the digits."""
    digits = load("digits")
    return ImageDataset.build(
        "few digits", digits.train.first(train), digits.test.first(test), digits.class_names, flip=False
    )


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
