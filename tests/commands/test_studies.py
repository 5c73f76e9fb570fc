"""`ghnq sensitivity`, `ghnq mixed`, and scheme files on their way through the other commands."""

import json
from pathlib import Path

import pytest
import yaml

from ghnq.data import load
from ghnq.hypernet import GHN, GHNConfig, Task
from ghnq.hypernet.checkpoint import checkpoint_hash
from ghnq.quant import load_scheme
from tests.report.pages import content_of
from tests.torch_versions import needs_program_files

from .conftest import Cli

MODEL = "small.py:Small"
SMALL = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, outputs=10):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.middle, self.classifier = nn.Conv2d(8, 8, 3), nn.Linear(8, outputs)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.classifier(torch.relu(self.middle(x)).mean((2, 3)))

def narrow():
    return Small(4)
"""
STUDIES = (
    ["sensitivity"],
    ["mixed", "--budget-bits", 5],
    ["export", "--out", "net.onnx"],
    ["export", "--out", "net.pt2"],
)


@pytest.fixture(autouse=True)
def small(models: Path) -> None:
    """A model of three layers for the digits, in the working directory."""
    (models.parent / "small.py").write_text(SMALL)


def test_sensitivity_gives_document_table_and_figure(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    words = ["sensitivity", MODEL, "--checkpoint", tiny_checkpoint, "--scheme", "w3a8", "--images", 40]
    call = ghnq(*words, "--json", "--out", tmp_path / "figure.html")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert document["scheme"] == "w3a8"
    assert document["images"] == 40
    names = [row["layer"] for row in document["layers"]]
    assert names == ["stem", "middle", "classifier"]
    assert all(row["alone"]["divergence"] >= 0 for row in document["layers"])
    page = content_of(tmp_path / "figure.html")
    assert "Sensitivity of" in page["title"]
    assert [row["layer"] for row in page["documents"][0]["layers"]["rows"]] == names
    assert MODEL in page["drawings"]
    told = ghnq(*words)
    assert told.code == 0
    assert "classifier" in told.out
    assert "mean divergence" in told.out


def test_sensitivity_names_the_whole_scheme(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "edges.yaml"
    file.write_text("scheme: w4a8\nprotocol: paper\noverrides: {stem: w8a8}\nsteps: [squant]\n")
    words = ["sensitivity", MODEL, "--checkpoint", tiny_checkpoint, "--scheme", file, "--images", 40]
    said = "w4a8+stem=w8a8, protocol paper + squant"
    told = ghnq(*words, "--out", tmp_path / "figure.html")
    assert told.code == 0, told.err
    assert f"Sensitivity of {MODEL} to {said}," in " ".join(told.out.split())
    assert any(line.split()[:2] == ["all", "mixed"] for line in told.out.splitlines())
    page = content_of(tmp_path / "figure.html")
    assert f"to {said}, parameters" in page["title"]
    assert (
        page["documents"][0]["accuracies"]["setting"] | {"protocol": "paper", "steps": "squant"}
        == (page["documents"][0]["accuracies"]["setting"])
    )
    document = json.loads(ghnq(*words, "--steps", "squant", "--json").out)  # what the file says may be said again
    assert (document["scheme"], document["protocol"], document["steps"]) == ("w4a8+stem=w8a8", "paper", ["squant"])


def test_a_mixed_scheme_goes_its_way(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "mixed.yaml"
    call = ghnq(
        "mixed", MODEL, "--checkpoint", tiny_checkpoint, "--budget-bits", 4.5, "--images", 40, "--choices", "3,4,8",
        "--steps", "squant", "--out", file, "--json",
    )  # fmt: skip
    assert call.code == 0, call.err
    document = json.loads(call.out)
    scheme = load_scheme(file)
    assert str(scheme) == document["scheme"]
    assert scheme.steps == ("squant",)
    assert yaml.safe_load(file.read_text())["about"]["model"] == MODEL
    rows = {row["name"]: row for row in document["measured"]}
    assert rows["mixed"]["bits"] <= 4.5
    assert {"float32", "w3a8", "w4a8", "mixed"} == set(rows)
    # Measured anew through the scheme file, the numbers are the same.
    again = ghnq("sensitivity", MODEL, "--checkpoint", tiny_checkpoint, "--scheme", file, "--images", 40, "--json")
    assert again.code == 0, again.err
    quantized = json.loads(again.out)["quantized"]
    assert quantized["divergence"] == pytest.approx(rows["mixed"]["divergence"], rel=1e-6)
    predicted = ghnq(
        "predict", MODEL, "--checkpoint", tiny_checkpoint, "--scheme", file, "--input-shape", "1,8,8",
        "--out", tmp_path / "a.safetensors", "--json",
    )  # fmt: skip
    assert predicted.code == 0, predicted.err
    assert json.loads(predicted.out)["scheme"] == str(scheme)


def test_scheme_files_in_an_evaluation_go_by_name_and_content(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "edges.yaml", tmp_path / "out"
    words = ["evaluate", tiny_checkpoint, "--limit", 1, "--images", 40, "--out", out, "--json"]
    file.write_text("scheme: w2a8\noverrides: {stem.conv: w8a8, classifier: w8a8}\n")
    first = ghnq(*words, "--schemes", f"float32,{file}")
    assert first.code == 0, first.err
    file.write_text("scheme: w8a8\n")  # other content, other name: the old rows are not taken for these
    second = ghnq(*words, "--schemes", f"float32,{file}")
    assert second.code == 0, second.err
    names = [[row["scheme"] for row in json.loads(call.out)["rows"]] for call in (first, second)]
    assert all(name.startswith("edges@") for _, name in names)
    assert names[0][1] != names[1][1]
    about = json.loads((out / "summary.json").read_text())
    assert "scheme: w8a8" in about["scheme_files"][names[1][1]]
    # Steps change what rows hang on, and are refused in a folder of rows without them.
    mixed_up = ghnq(*words, "--schemes", "w4a8", "--steps", "squant")
    assert mixed_up.code == 2
    assert "steps was None, now ['squant']" in mixed_up.err
    fresh = ghnq("evaluate", tiny_checkpoint, "--limit", 1, "--images", 40, "--schemes", "w4a8", "--steps",
                 "squant,equalize", "--out", tmp_path / "other", "--json")  # fmt: skip
    assert fresh.code == 0, fresh.err
    assert json.loads(fresh.out)["steps"] == ["equalize", "squant"]
    (shown,) = content_of(tmp_path / "other" / "report.html")["documents"]
    assert shown["accuracies"]["setting"]["steps"] == "equalize + squant"
    assert json.loads((tmp_path / "other" / "summary.json").read_text())["steps"] == ["equalize", "squant"]


@pytest.mark.parametrize("command", [*STUDIES[:3], pytest.param(STUDIES[3], marks=needs_program_files)])
def test_for_other_images_and_classes_the_head_is_solved(ghnq: Cli, tmp_path: Path, command: list[str]) -> None:
    digits = load("digits")
    statistics = {"mean": tuple(digits.mean.tolist()), "std": tuple(digits.std.tolist())}
    colour = Task(data="digits", image_shape=(3, 32, 32), **statistics)
    GHN(GHNConfig(hidden=8, max_shape=(16, 16, 3, 3)), task=colour).save_pretrained(tmp_path / "colour")
    GHN(GHNConfig(hidden=8, max_shape=(16, 16, 3, 3), num_classes=5)).save_pretrained(tmp_path / "five")
    for checkpoint, says in (
        ("colour", "10 classes on images of 3x32x32; 'digits'"),
        ("five", "for 5 classes on images"),
    ):
        words = [*command[1:], "--data", "digits", "--checkpoint", tmp_path / checkpoint]
        call = ghnq(command[0], MODEL, *words, "--json")
        assert call.code == 0, call.err
        assert says in call.err
        assert "head solved by ridge regression on 1294 training images of 'digits'" in call.err
        assert json.loads(call.out)["head"] == "head solved by ridge regression on 1294 training images of 'digits'"


def test_images_that_the_checkpoint_was_not_trained_on_are_told(
    ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    ghn = GHN.from_pretrained(tiny_checkpoint)
    assert ghn.task is not None
    words = ("--limit", 1, "--images", 20, "--schemes", "float32", "--json")
    for digest, told in ((load("digits").content_hash, 0), ("0" * 64, 1), (None, 0)):
        ghn.task = ghn.task.model_copy(update={"data_sha256": digest})
        ghn.save_pretrained(tmp_path / "checkpoint")
        call = ghnq("evaluate", tmp_path / "checkpoint", "--splits", "test", *words)
        assert call.code == 0, call.err
        assert call.err.count("was trained on other images ('digits')") == told
        assert json.loads(call.out)["protocol"] == "deploy"
    assert checkpoint_hash(tiny_checkpoint) == checkpoint_hash(tmp_path / "checkpoint")


@pytest.mark.parametrize("command", STUDIES, ids=lambda words: str(words[-1]))
def test_a_model_with_fewer_outputs_than_classes_is_refused(
    ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path, command: list[str]
) -> None:
    call = ghnq(command[0], "small.py:narrow", *command[1:], "--checkpoint", tiny_checkpoint)
    assert call.code == 2, call.err
    assert "The model has 4 outputs, 'digits' has 10 classes; take a model with 10 outputs" in call.err
    assert "Traceback" not in call.err
    assert not list(tmp_path.glob("net.*"))


def test_a_mixed_scheme_of_a_member_is_evaluated_on_that_member(
    ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "mixed.yaml", tmp_path / "out"
    words = ["--checkpoint", tiny_checkpoint, "--images", 40, "--json"]
    call = ghnq("mixed", "convnets/test/17", *words, "--budget-bits", 6, "--choices", "4,8", "--out", file)
    assert call.code == 0, call.err
    rows = {row["name"]: row for row in json.loads(call.out)["measured"]}
    words = ["evaluate", tiny_checkpoint, "--images", 40, "--schemes", f"float32,{file}", "--out", out]
    call = ghnq(*words, "--splits", "test/17", "--json")
    assert call.code == 0, call.err
    in_float, mixed = json.loads(call.out)["rows"]
    assert (mixed["split"], mixed["architectures"]) == ("test", 1)
    assert (in_float["mean"], mixed["mean"]) == pytest.approx([rows["float32"]["accuracy"], rows["mixed"]["accuracy"]])
    call = ghnq(*words, "--splits", "test", "--limit", 1)
    assert call.code == 2
    assert "convnets/test/0: override " in call.err
    assert "matches no layer" in call.err


def test_titles_tell_the_protocol_and_steps_of_files(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "paper.yaml"
    file.write_text("scheme: w8a8\nprotocol: paper\nsteps: [squant]\n")
    words = ["evaluate", tiny_checkpoint, "--limit", 1, "--images", 20]
    told = ghnq(*words, "--schemes", f"float32,{file}")
    assert told.code == 0, told.err
    assert "on digits, paper protocol + squant" in " ".join(told.out.split())
    call = ghnq(*words, "--schemes", f"w8a8,{file}", "--out", tmp_path / "out", "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    name = document["rows"][1]["scheme"]
    assert document["protocol"] == "deploy, paper"
    assert document["settings"] == {"w8a8": "deploy", name: "paper + squant"}
    assert "steps" not in document
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["settings"] == document["settings"]
    (shown,) = content_of(tmp_path / "out" / "report.html")["documents"]
    assert (
        shown["accuracies"]["setting"] | {"protocol": "deploy, paper", "steps": f"{name}: squant"}
        == (shown["accuracies"]["setting"])
    )
    # What the file says may be said again; the words then have it, too.
    call = ghnq(*words, "--schemes", f"w8a8,{file}", "--protocol", "paper", "--steps", "squant", "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert (document["protocol"], document["steps"], "settings" in document) == ("paper", ["squant"], False)


@needs_program_files
def test_exported_files_tell_their_steps(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    words = ["export", MODEL, "--checkpoint", tiny_checkpoint, "--scheme", "w4a8", "--calibration", 64]
    words += ["--steps", "correct_bias,squant", "--out"]
    said = "w4a8, protocol deploy + squant + correct_bias"
    for name in ("net.onnx", "net.pt2"):
        call = ghnq(*words, name, "--json")
        assert call.code == 0, call.err
        document = json.loads(call.out)
        assert document["steps"] == ["squant", "correct_bias"]
        assert "- squant\n- correct_bias\n" in document["scheme_file"]
        call = ghnq("verify", name, "--images", 20, "--json")
        assert call.code == 0, call.err
        facts = json.loads(call.out)["facts"]
        assert (facts["steps"], facts["scheme_file"]) == (document["steps"], document["scheme_file"])
        assert f"{name}: {said}" in " ".join(ghnq("verify", name, "--images", 20).out.split())
    assert f"as {said}:" in ghnq(*words, "net.onnx").out
    call = ghnq("profile", "net.onnx", "--repeats", 2, "--json")
    assert json.loads(call.out)["facts"]["steps"] == ["squant", "correct_bias"]
    assert f"net.onnx: {said}" in " ".join(ghnq("profile", "net.onnx", "--repeats", 2).out.split())
