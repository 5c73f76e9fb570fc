"""Models whose result is no tensor, on the command line: all commands take the same one of its tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.commands.conftest import Cli

MODELS = """
from dataclasses import dataclass
from typing import Any
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        features = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.result(features, self.head(features))

    def result(self, features, logits):
        return logits

@dataclass
class Result:
    features: Any
    logits: Any

class Named(Plain):
    def result(self, features, logits):
        return Result(features, logits)

class Second(Plain):
    def result(self, features, logits):
        return features, logits

class InTraining(Plain):
    def result(self, features, logits):
        return (features, logits) if self.training else logits

class Unclear(Plain):
    def result(self, features, logits):
        return {"scores": logits, "negative": logits * -1.0}
"""


@pytest.fixture
def nets(models: Path) -> Path:
    """The folder of the user's file, which is the working directory."""
    (models.parent / "nets.py").write_text(MODELS)
    return models.parent


def test_all_take_the_logits(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    named = [f"nets.py:{name}" for name in ("Plain", "Named", "Second", "InTraining")]
    call = ghnq(
        "score", *named, "--checkpoint", tiny_checkpoint, "--images", "60", "--schemes", "float32,w4a8", "--json"
    )
    assert call.code == 0, call.err
    rows = json.loads(call.out)["rows"]
    of = {name: [(row["scheme"], row["correct"]) for row in rows if row["model"] == name] for name in named}
    assert len(of["nets.py:Plain"]) == 2
    assert all(each == of["nets.py:Plain"] for each in of.values())

    weights = {}
    for name in named:
        call = ghnq("predict", name, "--checkpoint", tiny_checkpoint, "--data", "digits", "--out", "w.safetensors")
        assert call.code == 0, call.err
        weights[name] = load_file("w.safetensors")
    for tensors in weights.values():
        assert tensors.keys() == weights[named[0]].keys()
        assert all(torch.equal(tensor, weights[named[0]][key]) for key, tensor in tensors.items())


@pytest.mark.parametrize("out", ["net.onnx", pytest.param("net.pt2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["Named", "Second"])
def test_the_file_agrees_with_its_simulation(ghnq: Cli, nets: Path, tiny_checkpoint: Path, name: str, out: str) -> None:
    if out.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    call = ghnq("export", f"nets.py:{name}", "--checkpoint", tiny_checkpoint, "--scheme", "w8a8", "--out", out)
    assert call.code == 0, call.err
    verified = json.loads(ghnq("verify", out, "--json").out)
    agreement = verified["agreement"] if out.endswith("onnx") else verified["eager"]["agreement"]
    accuracy = verified["accuracy_simulation"]
    assert agreement == 100.0
    ghnq("export", "nets.py:Plain", "--checkpoint", tiny_checkpoint, "--scheme", "w8a8", "--out", out)
    assert json.loads(ghnq("verify", out, "--json").out)["accuracy_simulation"] == accuracy


def test_what_is_not_clear_is_asked_for(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    checkpoint, model = ["--checkpoint", tiny_checkpoint], "nets.py:Unclear"
    for words in (
        ["export", model, *checkpoint, "--out", "net.onnx"],
        ["score", model, *checkpoint, "--images", "20"],
        ["sensitivity", model, *checkpoint, "--images", "20"],
        ["mixed", model, *checkpoint, "--budget-bits", "4", "--images", "20"],
        ["predict", model, *checkpoint, "--data", "digits", "--out", "w.safetensors"],
        ["finetune", model, "--init", tiny_checkpoint, "--data", "digits"],
    ):
        call = ghnq(*words)
        assert (call.code, call.out) == (2, "")
        assert "the network returns 'scores' [N, 10], 'negative' [N, 10]" in call.err
        assert "name it with --output NAME" in call.err
        assert "Traceback" not in call.err
        call = ghnq(*words, "--output", "score")
        assert (call.code, call.out) == (2, "")
        assert "no tensor 'score' (did you mean 'scores'?); there are 'scores', 'negative'" in call.err
    assert not [path for path in nets.iterdir() if path.suffix in (".onnx", ".safetensors") or path.name == "runs"]

    score = ["--checkpoint", tiny_checkpoint, "--images", "100", "--json"]
    rows = json.loads(ghnq("score", model, *score, "--output", "scores").out)["rows"]
    plain = json.loads(ghnq("score", "nets.py:Plain", *score).out)["rows"]
    assert [row["correct"] for row in rows] == [row["correct"] for row in plain]
    call = ghnq("score", "nets.py:Plain", *checkpoint, "--images", "20", "--output", "scores")
    assert (call.code, call.out) == (2, "")
    assert "one tensor, without names: there is no output 'scores'" in call.err


def test_predicted_without_images(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    words = ["nets.py:Second", "--checkpoint", tiny_checkpoint, "--out", "w.safetensors"]
    call = ghnq("predict", *words)
    assert call.code == 2
    assert "'0' [N, 12], '1' [N, 10], and it is not clear" in call.err
    assert "--input-shape" not in call.err
    assert ghnq("predict", *words, "--output", "1").code == 0
    with_output = load_file("w.safetensors")
    assert ghnq("predict", "nets.py:Plain", *words[1:]).code == 0
    assert all(torch.equal(tensor, with_output[name]) for name, tensor in load_file("w.safetensors").items())
    assert ghnq("draw", words[0], "--input-shape", "1,8,8", "--out", "graph.svg").code == 2
    assert ghnq("draw", words[0], "--input-shape", "1,8,8", "--out", "graph.svg", "--output", "1").code == 0


@pytest.mark.slow
def test_fine_tuned_and_exported_by_the_command_that_is_printed(ghnq: Cli, nets: Path) -> None:
    """With the shipped checkpoint, whose images are the digits in another size."""
    after = {}
    for name, options in (
        ("Plain", []),
        ("Named", []),
        ("Second", []),
        ("InTraining", []),
        ("Unclear", ["--output", "scores"]),
    ):
        words = ["finetune", f"nets.py:{name}", "--epochs", "1", "--out", f"run-{name}", *options]
        call = ghnq(*words, "--json")
        assert call.code == 0, call.err
        document = json.loads(call.out)
        after[name] = document["after"]
        command = document["export_command"].split()
        assert command[0] == "ghnq"
        call = ghnq(*command[1:], "--json")
        assert call.code == 0, call.err
    assert len({json.dumps(each) for each in after.values()}) == 1
    call = ghnq(
        "finetune", "nets.py:Unclear", "--epochs", "1", "--out", "run-Unclear", "--output", "negative", "--resume"
    )
    assert call.code == 2
    assert "--output (was scores, now negative)" in call.err
    call = ghnq("export", "nets.py:Unclear", "--weights", "run-Unclear", "--output", "score", "--out", "net.onnx")
    assert "did you mean 'scores'?" in call.err


@pytest.mark.parametrize("by", ["accuracy", pytest.param("finetune", marks=pytest.mark.slow)])
def test_candidates_are_ranked_by_the_logits_that_are_named(
    ghnq: Cli, nets: Path, tiny_checkpoint: Path, by: str
) -> None:
    words = ["--checkpoint", tiny_checkpoint, "--by", by, "--images", 60, "--minutes", 0.01, "--workers", 1, "--json"]
    plain = ghnq("rank", "nets.py:Plain", *words)
    assert plain.code == 0, plain.err
    unclear = ghnq("rank", "nets.py:Unclear", *words)
    assert unclear.code == 2
    assert "name it with --output NAME" in unclear.err
    named = ghnq("rank", "nets.py:Unclear", *words, "--output", "scores", "--out", "ranked")
    assert named.code == 0, named.err
    (row,), (expected,) = (json.loads(call.out)["rows"] for call in (named, plain))
    assert (row["value"], row["accuracy"]) == (expected["value"], expected["accuracy"])
    assert json.loads(Path("ranked/ranking.json").read_text())["output"] == "scores"
    assert all("--output scores" in command for command in json.loads(named.out)["next"])
    other = ghnq("rank", "nets.py:Unclear", *words, "--output", "negative", "--out", "ranked")
    assert other.code == 2
    assert "output was scores, now negative" in other.err
    member = ghnq("rank", "nets.py:Unclear", "convnets/test/6", *words, "--output", "scores")
    assert member.code == 2
    assert "convnets/test/6 returns its logits alone" in member.err
