"""Random networks: what a file holds is the simulation, and its runtime computes what the simulation does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ghnq.deploy import export_onnx, export_program
from ghnq.deploy.graph.integer_arithmetic import in_integers
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import load_model, read_simulation
from ghnq.deploy.pt2e.program_file import load_program
from ghnq.deploy.pt2e.reader import read_program
from tests.deploy.nets import CALIBRATION, TEST
from tests.deploy.random_networks import NETWORKS, SCHEMES, Block, build
from tests.torch_versions import needs_program_files

pytestmark = pytest.mark.slow
OPTIONS = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], print_blob=True)


def assert_same(logits: Tensor, expected: Tensor) -> None:
    """Equal up to rounding of floats; where that moves a value over a tie, an image differs by a step of a layer."""
    largest = float(expected.abs().max())
    differences = (logits - expected).abs().amax(1)
    assert float((differences > 1e-4 * largest).double().mean()) <= 0.03
    assert float(differences.max()) < 0.1 * largest


@OPTIONS
@given(blocks=NETWORKS, scheme=SCHEMES, seed=st.integers(0, 99))
def test_onnx(blocks: list[Block], scheme: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "net.onnx")
        exported = export_onnx(build(blocks, seed), scheme, calibration=CALIBRATION, out=out, batch_size=64)
        model = load_model(out)
    with torch.no_grad():
        simulation = read_simulation(model, str(out))
        assert torch.equal(simulation(TEST), exported.simulation(TEST))
        expected = in_integers(simulation)(TEST)
    assert_same(runtime.run(runtime.session(model.SerializeToString()), TEST), expected)


@needs_program_files
@OPTIONS
@given(blocks=NETWORKS, scheme=SCHEMES, seed=st.integers(0, 99))
def test_programs(blocks: list[Block], scheme: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "net.pt2")
        exported = export_program(build(blocks, seed), scheme, calibration=CALIBRATION, out=out, batch_size=64)
        program, _ = load_program(out)
    with torch.no_grad():
        expected = exported.simulation(TEST)
        assert torch.equal(read_program(program, str(out))(TEST), expected)
        assert_same(program.module()(TEST), expected)  # type: ignore[operator]
