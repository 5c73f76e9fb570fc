"""A small hypernetwork and few images, so that a whole evaluation takes a second."""

from __future__ import annotations

import torch

from ghnq.data import ImageDataset, load
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
