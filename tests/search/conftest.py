"""A bench with a small hypernetwork on the digits, and small candidates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import nn

from ghnq.data import load
from ghnq.prediction import PredictedWeights
from ghnq.progress import ProgressCallback
from ghnq.quant import QuantScheme
from ghnq.search.candidates import Candidate
from ghnq.search.measuring import Measurer
from ghnq.search.subject import Bench
from tests.small_networks import small_ghn


def small(width: int, depth: int = 1) -> nn.Module:
    """A network of a few layers for images with one channel."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Conv2d(width if number else 1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench.of(PredictedWeights(small_ghn()), load("digits"))


def measurer_of(bench: Bench, candidates: dict[str, object], *schemes: str) -> Measurer:
    """A measurer of modules or functions, ranked by the first scheme."""
    named = {text: QuantScheme.parse(text) for text in schemes or ("w4a4",)}
    return Measurer(bench, {name: Candidate(name, value=value) for name, value in candidates.items()}, named)


@contextmanager
def silent(what: str) -> Iterator[ProgressCallback]:
    yield lambda done, total: None
