"""Files that several tests use are exported once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ghnq.data import ImageDataset, Images
from ghnq.deploy import Exported, export_onnx
from tests.deploy.nets import CALIBRATION, NETS

Exports = Callable[..., Exported]


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Exports a network of `nets.py` by name, under a scheme; not to be changed."""

    @cache
    def export(name: str, scheme: str, **options: Any) -> Exported:
        out: Path = tmp_path_factory.mktemp("exports") / "net.onnx"
        return export_onnx(NETS[name](), scheme, calibration=CALIBRATION, out=out, batch_size=64, **options)

    return export


@pytest.fixture(scope="session")
def dataset() -> ImageDataset:
    """Noise with arbitrary labels."""
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        return Images(pixels, torch.arange(count) % 10)

    return ImageDataset.build("noise", images(80), images(60), tuple("abcdefghij"), flip=False)
