"""A small hypernetwork and few images."""

from __future__ import annotations

import pytest

from ghnq.data import ImageDataset
from ghnq.hypernet import GHN
from tests.small_networks import small_digits, small_ghn


@pytest.fixture
def ghn() -> GHN:
    return small_ghn()


@pytest.fixture
def digits() -> ImageDataset:
    return small_digits()
