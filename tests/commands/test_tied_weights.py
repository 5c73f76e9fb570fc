"""Networks with one parameter under several names, through every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from ghnq.data import load
from ghnq.models import load_model

from .conftest import Cli

NETS = """
import torch
from torch import nn

class Tied(nn.Module):
    "Two convolutions with one weight, and one layer under two names."

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.a = nn.Conv2d(12, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 12, 3, padding=1)
        self.b.weight = self.a.weight
        self.norm1, self.norm2, self.norm3 = norm(12), norm(12), norm(12)
        self.head = nn.Linear(12, 10)
        self.classifier = self.head

    def forward(self, x):
        x = self.norm1(self.stem(x)).relu()
        x = self.norm2(self.a(x)).relu()
        return self.classifier(self.norm3(self.b(x)).relu().mean((2, 3)))

def without_norms():
    return Tied(norm=nn.Identity)
"""


@pytest.fixture
def nets(models: Path) -> Path:
    (models.parent / "tied.py").write_text(NETS)
    return models.parent


def is_tied(module: nn.Module) -> bool:
    return module.a.weight is module.b.weight and module.head is module.classifier


def test_files_have_every_name_and_load_strictly(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    model = "tied.py:Tied"
    for command in (
        ["predict", model, "--checkpoint", tiny_checkpoint, "--data", "digits", "--out", "p.safetensors"],
        ["finetune", model, "--init", tiny_checkpoint, "--scheme", "w4a8", "--epochs", 0.3, "--lr", 0.01, "--out", "q"],
        ["finetune", model, "--init", tiny_checkpoint, "--epochs", 0.3, "--lr", 0.01, "--out", "r"],
    ):
        call = ghnq(*command)
        assert call.code == 0, call.err
        file = command[-1] if command[0] == "predict" else f"{command[-1]}/weights.safetensors"
        tensors = load_file(str(file))
        module = load_model(model)
        assert tensors.keys() == module.state_dict().keys()
        module.load_state_dict(tensors, strict=True)
        assert is_tied(module)
        assert torch.equal(tensors["a.weight"], tensors["b.weight"])
        # What the file holds is what the command has measured; trained at w4a8, it holds the statistics of w4a8.
        digits = load("digits")
        with torch.no_grad():
            found = module.eval()(digits.normalise(digits.test.pixels)).argmax(1)
        words = ["score", model, "--weights", file, "--schemes", "float32", "--on", "test", "--json"]
        row = json.loads(ghnq(*words).out)["rows"][0]
        if "w4a8" not in command:
            assert row["correct"] == pytest.approx(int((found == digits.test.labels).sum()), abs=1)
        if command[0] == "finetune":
            document = json.loads(Path(command[-1], "result.json").read_text())
            assert document["after"]["float32"] == pytest.approx(row["accuracy"], abs=0.3)


def test_what_save_model_writes_is_read(ghnq: Cli, nets: Path) -> None:
    """safetensors' `save_model` writes one of the names of a shared tensor."""
    module = load_model("tied.py:Tied").eval()
    save_model(module, "once.safetensors")
    assert len(load_file("once.safetensors")) < len(module.state_dict())
    save_file({name: tensor.clone() for name, tensor in module.state_dict().items()}, "all.safetensors")
    rows = []
    for file in ("once.safetensors", "all.safetensors"):
        call = ghnq(
            "score", "tied.py:Tied", "--weights", file, "--data", "digits", "--schemes", "float32,w4a8", "--json"
        )
        assert call.code == 0, call.err
        rows.append(json.loads(call.out)["rows"])
    assert rows[0] == rows[1]
    call = ghnq("export", "tied.py:Tied", "--weights", "once.safetensors", "--data", "digits", "--out", "net.onnx")
    assert call.code == 0, call.err


def test_tensors_that_should_be_one_but_differ_are_refused(ghnq: Cli, nets: Path) -> None:
    module = load_model("tied.py:Tied")
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors["b.weight"] += 1
    save_file(tensors, "two.safetensors")
    call = ghnq("score", "tied.py:Tied", "--weights", "two.safetensors", "--data", "digits")
    assert call.code == 2
    assert "'a.weight' and 'b.weight' are one tensor of the model, but differ in 'two.safetensors'" in call.err
    del tensors["b.weight"], tensors["a.weight"]
    save_file(tensors, "none.safetensors")
    call = ghnq("score", "tied.py:Tied", "--weights", "none.safetensors", "--data", "digits")
    assert call.code == 2
    assert "has no 'a.weight'" in call.err


def test_tied_convolutions_without_norms_are_not_scaled_twice(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    words = ["--checkpoint", tiny_checkpoint, "--json", "--out"]
    call = ghnq("predict", "tied.py:without_norms", "--data", "digits", *words, "calibrated.safetensors")
    assert any("'a', 'b'" in text and "not standardised" in text for text in json.loads(call.out)["warnings"])
    assert ghnq("predict", "tied.py:without_norms", *words, "plain.safetensors").code == 0
    calibrated, plain = load_file("calibrated.safetensors"), load_file("plain.safetensors")
    assert torch.equal(calibrated["a.weight"], plain["a.weight"])
    ratio = calibrated["stem.weight"] / plain["stem.weight"]  # has its own weight, and is scaled channel by channel
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio), rtol=1e-3, atol=1e-3)
    assert (ratio - 1).abs().max() > 0.01
