"""Files that several tests look at are exported once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

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
