"""Metrics of networks that overflow."""

from __future__ import annotations

import math

import torch

from ghnq.analysis.metrics import compare


def test_networks_that_overflow_are_told_apart() -> None:
    figures = compare(None, torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    assert (figures.accuracy, figures.loss, figures.divergence) == (0.0, math.inf, math.inf)
    assert figures.document() == {"accuracy": 0.0, "loss": None, "divergence": None, "sqnr": None}
