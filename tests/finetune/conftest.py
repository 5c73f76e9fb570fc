"""A small network and small images, for runs of a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from ghnq.data import ImageDataset, load
from ghnq.finetune import Job, Result, Settings, finetune
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.prediction import Network, WeightSource
from ghnq.quant import QuantScheme


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    """300 training and 100 test images of scikit-learn's digits."""
    whole = load("digits")
    return replace(whole, train=whole.train.take(torch.arange(300)), test=whole.test.first(100))


def small_module() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


@pytest.fixture
def network(digits: ImageDataset) -> Network:
    """The small network with random weights."""
    return Network(small_module(), KaimingWeights(), digits, digits.calibration(64, 0))


Go = Callable[..., Result]


@pytest.fixture
def go(network: Network, tmp_path: Path) -> Go:
    """Runs a fine-tuning: go(scheme, weights=..., teacher=..., resume=..., out=..., **settings)."""

    def run(
        scheme: str = "float32",
        *,
        out: Path | None = None,
        weights: WeightSource | None = None,
        module: nn.Module | None = None,
        resume: bool = False,
        teacher: nn.Module | None = None,
        console: Console | None = None,
        **settings: Any,
    ) -> Result:
        chosen = {"epochs": 6, "batch_size": 32, "lr": 0.1} | settings
        job = Job(
            model="small", origin=("init", "kaiming"), scheme=scheme, scheme_content=scheme, data="digits",
            data_sha256=network.dataset.content_hash, teacher=None, settings=Settings(**chosen),
        )  # fmt: skip
        changed = replace(network, weights=weights or network.weights, module=module or network.module)
        return finetune(
            changed, job, QuantScheme.parse(scheme), out=out or tmp_path / "run", resume=resume, teacher=teacher,
            console=console or Console(quiet=True),
        )  # fmt: skip

    return run
