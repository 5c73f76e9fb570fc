"""`ghnq rank`: what it prints, what it writes, what it refuses, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ghnq import spaces
from ghnq.data import load
from ghnq.models import load_model
from ghnq.search.evidence import evidence
from ghnq.search.measuring import Measurer, Task
from ghnq.search.signals import DEFAULT
from ghnq.spaces.spec_file import read_spec_file

from .conftest import Cli
from .test_score import NETS

MORE = """
class Fails(Digits):
    def forward(self, x):
        raise RuntimeError("my own mistake")

ZOO = {"small": Digits(width=3), "wide": lambda: Digits(width=16), "wrong": Fails(), "number": 7}
"""


@pytest.fixture
def nets(models: Path) -> Path:
    """A file of the user's in the working directory."""
    (models.parent / "nets.py").write_text(NETS + MORE)
    return models.parent


def test_the_document_the_files_and_the_next_commands(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    call = ghnq(
        "rank", "nets.py:ZOO", "convnets/test/6", "--checkpoint", tiny_checkpoint, "--scheme", "w4a8,w8a8",
        "--images", 60, "--minutes", 0.02, "--top", 2, "--out", "ranked", "--workers", 1, "--json",
    )  # fmt: skip
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert json.loads(Path("ranked/ranking.json").read_text()) == document
    assert [row["model"] for row in document["rows"]] == ["convnets/test/6", "nets.py:ZOO[wide]"]
    assert {each["model"] for each in document["failed"]} == {"nets.py:ZOO[wrong]", "nets.py:ZOO[number]"}
    assert document["candidates"] == 4
    assert document["by"] == DEFAULT
    assert document["worth"]["tau"] == evidence().fits[DEFAULT].tau
    assert any("here 60 and 1.2:" in sentence for sentence in document["worth"]["sentences"])
    assert document["rounds"] == [{"candidates": 3, "by": DEFAULT, "images": 60, "seconds": pytest.approx(1.2)}]
    slug = {"convnets/test/6": "01-convnets-test-6", "nets.py:ZOO[wide]": "02-nets.py-ZOO-wide"}
    for row in document["rows"]:
        score = ghnq(
            "score", row["model"], "--checkpoint", tiny_checkpoint, "--schemes", "w4a8,w8a8", "--images", 60, "--json"
        )
        assert {each["scheme"]: each["accuracy"] for each in json.loads(score.out)["rows"]} == pytest.approx(
            row["accuracy"],
            abs=100 * 2 / 60,  # calibrated on as many images as are measured, at least 64
        )
        (file,) = [name for name in document["weights"] if slug[row["model"]] in name]
        weights = load_file(Path("ranked") / file)
        expected = load_model(row["model"], input_shape=(1, 8, 8)).state_dict()
        assert {name: each.shape for name, each in weights.items()} == {n: each.shape for n, each in expected.items()}
        assert all(bool(each.isfinite().all()) for each in weights.values())
    (spec,) = Path("ranked/best").glob("*.json")
    assert read_spec_file(spec)[1] == spaces.get("convnets").spec("test", 6)
    assert [shlex.split(command)[:3] for command in document["next"]] == [
        ["ghnq", "finetune", "convnets/test/6"], ["ghnq", "export", "convnets/test/6"]
    ]  # fmt: skip


@pytest.mark.slow
def test_the_next_commands_run(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    words = ("--checkpoint", tiny_checkpoint, "--by", "fitted", "--top", 1, "--out", "ranked", "--json")
    call = ghnq("rank", "nets.py:ZOO", *words)
    assert call.code == 0, call.err
    for command in json.loads(call.out)["next"]:
        words = shlex.split(command)[1:]
        assert "nets.py:ZOO[wide]" in words
        extra = ["--epochs", "0.1"] if words[0] == "finetune" else []
        done = ghnq(*words, *extra)
        assert done.code == 0, done.err
    assert Path("model.onnx").exists()


def test_the_table_says_what_its_order_is_worth(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    options = ("--checkpoint", tiny_checkpoint, "--images", 60, "--workers", 1)
    call = ghnq("rank", "nets.py:ZOO", *options, "--minutes", 0.005)
    assert call.code == 0, call.err
    assert f"Kendall's tau of '{DEFAULT}' is {evidence().fits[DEFAULT].tau:.2f}" in call.out
    assert "here 60 and 0.3: with less an order is worth less" in call.out
    assert evidence().caution in call.out
    assert "nets.py:ZOO[wide]" in call.out  # not taken for markup
    assert "2 candidates failed:" in call.out
    assert "nets.py:ZOO[wrong]" in call.out
    assert "my own mistake" in call.out
    assert "without `condition`" in call.err
    by_accuracy = ghnq("rank", "nets.py:ZOO", *options, "--by", "accuracy")
    assert f"Kendall's tau of 'accuracy' is {evidence().signals['accuracy'].tau:.2f}" in by_accuracy.out


def test_an_interrupted_command_goes_on(
    ghnq: Cli, nets: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "rank", "nets.py:ZOO", "nets.py:Digits", "nets.py:wide", "--checkpoint", tiny_checkpoint, "--by", "loss",
        "--images", 60, "--workers", 1, "--json",
    )  # fmt: skip
    whole = json.loads(ghnq(*words).out)
    measure, made = Measurer.measure, list[Task]()

    def interrupted(self: Measurer, task: Task) -> object:
        made.append(task)
        if len(made) == 3:
            raise KeyboardInterrupt
        return measure(self, task)

    with monkeypatch.context() as stopping:
        stopping.setattr(Measurer, "measure", interrupted)
        call = ghnq(*words, "--out", "kept")
    assert call.code == 130
    assert "2 measurements are kept in 'kept'; the same command goes on with the others" in call.err
    again = json.loads(ghnq(*words, "--out", "kept").out)
    assert again["rows"] == whole["rows"]
    refused = ghnq(*words, "--out", "kept", "--seed", 1)
    assert refused.code == 2
    assert "seed was 0, now 1" in refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["convnets/train"], "say how many are wanted (--n)"),
        (["nets.py:ZOO", "nets.py:ZOO[small]"], "two candidates have the name 'nets.py:ZOO[small]'"),
        (["nets.py:ZO"], "did you mean 'ZOO'?"),
        (["nets.py:ZOO", "--by", "acuracy"], "did you mean 'accuracy'?"),
        (["nets.py:ZOO", "--max-macs", "10"], "none of 2 candidates is left: --max-macs 10 took 2"),
        (["nets.py:ZOO", "--max-macs", "0"], "--max-macs 0 leaves no candidate"),
        (["nets.py:ZOO", "--scheme", "w4b4"], "w4b4"),
        (["nets.py:ZOO", "--on", "train"], "--on takes val or test"),
        (["nets.py:ZOO", "--minutes", "0"], "--minutes is 0"),
        (["nets.py:ZOO", "--workers", "0"], "workers is 0"),
        (["nets.py:ZOO[wrong]"], "the only candidate failed: nets.py:ZOO[wrong]"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    ghnq: Cli, nets: Path, tiny_checkpoint: Path, words: list[str], said: str
) -> None:
    call = ghnq("rank", *words, "--checkpoint", tiny_checkpoint)
    assert call.code == 2, call.err
    assert said in call.err
    assert "Traceback" not in call.err
    assert call.out == ""


@pytest.mark.slow
def test_latency_is_that_of_the_integer_file(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    pytest.importorskip("onnxruntime")
    words = ("rank", "nets.py:Digits", "nets.py:wide", "--checkpoint", tiny_checkpoint, "--scheme", "w8a8", "--json")
    words += ("--by", "fitted")
    document = json.loads(ghnq(*words, "--max-latency", 1000).out)
    assert all(0 < row["latency_ms"] < 1000 for row in document["rows"])
    refused = ghnq(*words, "--max-latency", "1e-6")
    assert refused.code == 2
    assert "none of the best 2 candidates is within --max-latency 1e-06; the fastest takes" in refused.err


def test_test_images_are_only_for_the_best(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    words = ("rank", "nets.py:Digits", "nets.py:wide", "--checkpoint", tiny_checkpoint, "--scheme", "float32")
    words += ("--by", "fitted")
    document = json.loads(ghnq(*words, "--top", 1, "--on", "test", "--workers", 1, "--json").out)
    (row,) = document["rows"]
    score = ghnq(
        "score", row["model"], "--checkpoint", tiny_checkpoint, "--schemes", "float32", "--on", "test", "--json"
    )
    (expected,) = json.loads(score.out)["rows"]
    assert row["test"] == {"float32": expected["accuracy"]}
    assert len(load("digits").test) == expected["images"]


def test_written_files_do_not_name_folders(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    folder = nets / "private-4711"
    folder.mkdir()
    (folder / "nets.py").write_text(NETS + MORE)
    (folder / "damaged.json").write_text("{")
    (folder / "list.txt").write_text(f"{folder}/damaged.json\n{folder}/nets.py:ZOO\n")
    call = ghnq(
        "rank", folder / "list.txt", "--by", "fitted", "--checkpoint", tiny_checkpoint, "--out", "ranked", "--json"
    )
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert {row["model"] for row in document["rows"]} == {"nets.py:ZOO[small]", "nets.py:ZOO[wide]"}
    assert "damaged.json" in {each["model"] for each in document["failed"]}
    for file in Path("ranked").rglob("*"):
        assert "private-4711" not in file.name
        assert file.is_dir() or b"private-4711" not in file.read_bytes(), file


def test_files_of_an_earlier_ranking_are_replaced(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    words = ("rank", "nets.py:Digits", "nets.py:wide", "--checkpoint", tiny_checkpoint, "--out", "ranked", "--json")
    words += ("--by", "fitted")
    assert ghnq(*words).code == 0
    assert len(list(Path("ranked/best").iterdir())) == 2
    Path("ranked/best/mine.txt").write_text("kept")
    assert ghnq(*words, "--top", 1).code == 0
    assert sorted(file.name for file in Path("ranked/best").iterdir()) == ["01-nets.py-wide.safetensors", "mine.txt"]
