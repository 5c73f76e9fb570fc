"""Fixtures for the tests of quantization."""

from __future__ import annotations

import pytest
from torch import nn

from ghnq.quant import estimate_batch_norm
from tests.quant.nets import CALIBRATION, network


@pytest.fixture(scope="session")
def net() -> nn.Module:
    """`tests.quant.nets.network` in float with the statistics of the calibration images; must not be changed."""
    return estimate_batch_norm(network(channels=16), CALIBRATION)
