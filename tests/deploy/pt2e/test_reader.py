"""Programs that are read back: the simulation they were written from, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ghnq.deploy import export_program, in_integers, load_program
from ghnq.deploy.pt2e.lowering import lower
from ghnq.deploy.pt2e.reader import read_program
from ghnq.deploy.pt2e.tensor_names import layer_name
from ghnq.errors import ExportError
from tests.deploy.nets import CALIBRATION, TEST
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


class AlikeNames(nn.Module):
    """Layers whose names differ only in dots and underscores, and others that are named like parts of a file."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ModuleDict({"b": nn.Conv2d(3, 6, 3), "b_weight": nn.Conv2d(6, 6, 1)})
        self.a_b = nn.Conv2d(6, 6, 3)
        self.a_b_ = nn.Conv2d(6, 6, 1)
        self.layers = nn.Linear(6, 10)
        self.register_buffer("layers_", torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.a["b"], self.a_b, self.a["b_weight"], self.a_b_):
            x = torch.relu(layer(x))
        logits: torch.Tensor = self.layers(x.mean((2, 3)) + self.layers_)
        return logits


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8+a.b=w8a8+a_b_=float32"])
def test_names_of_layers_are_kept_apart(scheme: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = AlikeNames().eval()
    exported = export_program(net, scheme, calibration=CALIBRATION, out=tmp_path / "net.pt2", batch_size=64)
    program, _ = load_program(exported.path)
    again = read_program(program, "net.pt2")
    layers = ["a.b", "a_b", "a.b_weight", "a_b_", "layers"]
    assert [node.meta["layer"] for node in again.graph.nodes if "layer" in node.meta] == layers
    torch.testing.assert_close(logits(again), logits(exported.simulation), rtol=0, atol=0)
    in_float = ("a_b_",) if "float32" in scheme else ()
    assert lower(program, TEST[:8], exact=False).kernels.float_layers == in_float
    bits = [program.state_dict[f"layers.{name}.weight"].abs().max().item() for name in layers]
    assert bits == pytest.approx([127, 127, 127, 127, 127] if scheme == "w8a8" else [127, 7, 7, bits[3], 7])


def test_names_in_files_of_earlier_versions_are_read() -> None:
    assert [layer_name(name) for name in ("stem_conv_weight", "stem_conv_weight_", "a_b_weight_scale")] == [
        "stem_conv", "stem_conv", "a_b",
    ]  # fmt: skip


def test_a_function_that_is_not_supported_is_named() -> None:
    program = torch.export.export(nn.Sequential(nn.Flatten(), nn.Softplus()), (TEST[:2],), strict=False)
    with pytest.raises(ExportError, match=r"flatten|softplus"):
        read_program(program, "net.pt2")
