"""A small hypernetwork, few images, and a network of three layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ghnq.data import ImageDataset
from ghnq.hypernet import GHN
from ghnq.prediction import Network, PredictedWeights
from tests.small_networks import small_digits, small_ghn


@pytest.fixture
def ghn() -> GHN:
    return small_ghn()


@pytest.fixture
def digits() -> ImageDataset:
    return small_digits()


class Net(nn.Module):
    """Three layers; the middle one runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.middle, self.last = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.middle(torch.relu(self.middle(x))))
        return self.last(x.mean((2, 3)))


def predicted(module: nn.Module, ghn: GHN, digits: ImageDataset, calibration: int = 40) -> Network:
    return Network(module, PredictedWeights(ghn), digits, digits.calibration(calibration, 0))


@pytest.fixture
def network(ghn: GHN, digits: ImageDataset) -> Network:
    return predicted(Net(), ghn, digits)
