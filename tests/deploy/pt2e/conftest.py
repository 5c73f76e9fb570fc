"""Programs that several tests use are exported once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ghnq.deploy import Exported, export_program
from tests.deploy.nets import CALIBRATION, NETS, TEST

Programs = Callable[..., Exported]


def slow(*case: str) -> object:
    """Returns a case of `pytest.mark.parametrize` that is marked slow."""
    return pytest.param(*case, marks=pytest.mark.slow)


def logits(module: nn.Module, images: Tensor = TEST) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(images)
    return result


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Exports a network of `nets.py` by name, under a scheme, once."""

    @cache
    def made(name: str, scheme: str, protocol: str) -> Exported:
        out: Path = tmp_path_factory.mktemp("programs") / "net.pt2"
        return export_program(NETS[name](), scheme, calibration=CALIBRATION, out=out, batch_size=64, protocol=protocol)

    def export(name: str, scheme: str, protocol: str = "deploy") -> Exported:
        return made(name, scheme, protocol)

    return export
