"""Programs that are read back: the simulation they were written from, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghnq.deploy import in_integers, load_program
from ghnq.deploy.pt2e.reader import read_program
from ghnq.errors import ExportError
from tests.deploy.nets import TEST
from tests.deploy.pt2e.conftest import Programs, logits, slow
from tests.torch_versions import needs_program_files

pytestmark = needs_program_files


@pytest.mark.parametrize(
    ("name", "scheme", "protocol"),
    [
        ("chain", "w2a2", "deploy"),
        slow("mixed", "w8a8", "deploy"),
        ("branches", "w4a4", "deploy"),
        slow("conv-head", "w8a8", "deploy"),
        slow("shuffled", "w4a4", "deploy"),
        ("chain", "w8a8", "paper"),
        slow("chain", "w4", "deploy"),
    ],
)
def test_the_simulation_is_read_back_bit_for_bit(name: str, scheme: str, protocol: str, programs: Programs) -> None:
    exported = programs(name, scheme, protocol=protocol)
    program, facts = load_program(exported.path)
    assert facts == exported.facts
    again = in_integers(read_program(program, "net.pt2"))
    torch.testing.assert_close(logits(again), logits(in_integers(exported.simulation)), rtol=0, atol=0)
    torch.testing.assert_close(logits(program.module()), logits(exported.simulation), rtol=1e-5, atol=1e-5)


def test_a_function_that_is_not_supported_is_named() -> None:
    program = torch.export.export(nn.Sequential(nn.Flatten(), nn.Softplus()), (TEST[:2],), strict=False)
    with pytest.raises(ExportError, match=r"flatten|softplus"):
        read_program(program, "net.pt2")
