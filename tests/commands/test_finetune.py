"""`ghnq finetune` as it is called: in this process, and killed in one of its own."""

from __future__ import annotations

import json
import shlex
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.commands.conftest import Cli, start

NETS = """
from torch import nn

def small():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    )

def plain():
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))

def wide():
    net = small()
    net[0], net[1], net[5] = nn.Conv2d(1, 16, 3, stride=2), nn.BatchNorm2d(16), nn.Linear(16, 10)
    return net
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of models, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def test_one_document_and_one_table(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    words = ["finetune", "nets.py:small", "--init", tiny_checkpoint, "--epochs", 1, "--scheme", "w4a8", "--lr", 0.1]
    call = ghnq(*words, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert document["steps"] == round((1437 - 143) / 128) == 10
    assert set(document["before"]) == set(document["after"]) == {"float32", "w4a8"}
    assert document["test_images"] == 360
    assert document["export_command"] == (
        "ghnq export nets.py:small --weights runs/nets-small --scheme w4a8 --out model.onnx"
    )
    assert "learning rate up to 0.1, as given" in call.err
    tensors = load_file(nets / "runs" / "nets-small" / "weights.safetensors")
    assert tensors["0.weight"].shape == (8, 1, 3, 3)
    again = ghnq(*words)
    assert again.code == 2
    assert "already holds a run; add --resume" in again.err
    resumed = ghnq(*words, "--resume")
    assert resumed.code == 0
    assert f"{document['after']['w4a8']:.2f}" in resumed.out
    assert "export it with: ghnq export nets.py:small --weights runs/nets-small" in resumed.out


def test_weights_of_a_run_are_trained_on_and_taught(ghnq: Cli, nets: Path) -> None:
    kaiming = ["--init", "kaiming", "--data", "digits", "--lr", 0.2]
    first = ghnq("finetune", "nets.py:small", *kaiming, "--epochs", 2, "--out", "a", "--json")
    assert first.code == 0, first.err
    further = ghnq("finetune", "nets.py:small", "--weights", "a", "--epochs", 0.2, "--lr", 0.01, "--out", "b", "--json")
    assert further.code == 0, further.err
    assert json.loads(further.out)["before"] == json.loads(first.out)["after"]
    teacher = "nets.py:small@a/weights.safetensors"
    taught = ghnq("finetune", "nets.py:wide", *kaiming, "--epochs", 0.2, "--teacher", teacher, "--out", "c")
    assert taught.code == 0, taught.err
    wrong = ghnq("finetune", "nets.py:wide", "--weights", "a", "--out", "d")
    assert wrong.code == 2
    assert "'0.weight' has shape (8, 1, 3, 3) in 'a', and (16, 1, 3, 3) in the model" in wrong.err
    assert not (nets / "d").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--epochs", "0"], "--epochs 0 leaves nothing to train"),
        (["--max-minutes", "0"], "--max-minutes 0 leaves nothing to train"),
        (["--epochs", "1", "--max-minutes", "1"], "two budgets"),
        (["--lr", "fast"], "--lr 'fast' is not a number"),
        (["--lr", "-1"], "--lr is -1"),
        (["--device", "gpu"], "devices are auto, cpu, cuda"),
        (["--scheme", "w4b8"], "did you mean 'w4a8'"),
        (["--scheme", "w4a8+head=w8a8"], "override 'head' matches no layer"),
        (["--init", "digitz"], "did you mean 'digits'"),
        (["--init", "kaiming"], "name a data set with --data"),
        (["--weights", "nowhere.safetensors"], "there are no weights at 'nowhere.safetensors'"),
        (["--teacher", "nowhere.safetensors"], "there are no weights at 'nowhere.safetensors'"),
        (["--init", "digits", "--weights", "nowhere"], "--init digits and --weights nowhere are two sets"),
        (["--head", "solved", "--init", "kaiming", "--data", "digits"], "--head is for predicted weights"),
        (["--resume"], "no training state"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    ghnq: Cli, nets: Path, tiny_checkpoint: Path, words: list[str], says: str
) -> None:
    given = words if "--init" in words or "--weights" in words else ["--init", str(tiny_checkpoint), *words]
    call = ghnq("finetune", "nets.py:small", *given, "--out", "run")
    assert call.code == 2
    assert says in " ".join(call.err.split())
    assert call.out == ""
    assert not list((nets / "run").glob("*")) or "--resume" in words


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_ends_at_any_time_goes_on_to_the_same_curve_and_weights(nets: Path, number: signal.Signals) -> None:
    def words(out: str) -> list[object]:
        return [
            "finetune", "nets.py:small", "--init", "kaiming", "--data", "digits", "--scheme", "w4a4", "--epochs", 30,
            "--lr", 0.1, "--device", "cpu", "--out", out,
        ]  # fmt: skip

    whole = start(*words("whole"), cwd=nets)
    _, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    broken = start(*words("broken"), cwd=nets)
    log, deadline = nets / "broken" / "log.jsonl", time.monotonic() + 60
    while not (log.exists() and '"step": 130' in log.read_text()):
        assert broken.poll() is None, broken.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    broken.send_signal(number)
    _, err = broken.communicate(timeout=60)
    assert broken.returncode == (-9 if number == signal.SIGKILL else 130)
    if number == signal.SIGINT:
        assert "Go on with: ghnq finetune nets.py:small --init kaiming" in err
        assert "--out broken --resume" in err
    assert not (nets / "broken" / "weights.safetensors").exists()
    resumed = start(*words("broken"), "--resume", cwd=nets)
    _, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert losses(nets / "broken") == losses(nets / "whole")
    a, b = (load_file(nets / run / "weights.safetensors") for run in ("whole", "broken"))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_two_processes_train_the_same_network_as_one(nets: Path) -> None:
    # Without norms, whose statistics are those of each process's images, only the order of sums differs.
    def run(out: str, *options: object) -> list[tuple[int, float]]:
        process = start(
            "finetune", "nets.py:plain", "--init", "kaiming", "--data", "digits", "--device", "cpu", "--epochs", 11,
            "--out", out, *options, cwd=nets,
        )  # fmt: skip
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return losses(nets / out)

    one, two = run("one"), run("two", "--devices", 2)
    assert [step for step, _ in one] == [step for step, _ in two]
    assert [loss for _, loss in two[:5]] == pytest.approx([loss for _, loss in one[:5]], rel=1e-4)
    a, b = (json.loads((nets / out / "result.json").read_text()) for out in ("one", "two"))
    assert a["lr"] == b["lr"]  # both made the same range test
    assert b["after"]["float32"] == pytest.approx(a["after"]["float32"], abs=3)


@pytest.mark.slow
def test_two_processes_resume_and_keep_a_budget_of_time(nets: Path) -> None:
    words = [
        "finetune", "nets.py:small", "--init", "kaiming", "--data", "digits", "--device", "cpu", "--devices", 2,
        "--scheme", "w4a8", "--max-minutes", 0.3, "--out", "run",
    ]  # fmt: skip
    process = start(*words, cwd=nets)
    log, deadline = nets / "run" / "log.jsonl", time.monotonic() + 60
    while not (log.exists() and '"step": 30' in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    process = start(*words, "--resume", cwd=nets)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads((nets / "run" / "result.json").read_text())["seconds"] < 2 * 60 * 0.3


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--image-size", 16]])
def test_the_commands_that_are_advised_run(ghnq: Cli, tmp_path: Path, options: list[object]) -> None:
    """Images that the checkpoint's size or an option has resized come back in that size."""
    words = ["convnets/test/5", "--init", "digits", "--data", "digits", *options]
    call = ghnq("finetune", *words, "--epochs", 0.2, "--lr", 0.01, "--scheme", "w8a8", "--out", tmp_path / "run")
    assert call.code == 0, call.err
    (export,) = [line.partition(": ")[2] for line in call.out.splitlines() if line.startswith("export it with")]
    words = shlex.split(export.replace("model.onnx", str(tmp_path / "model.onnx")))[1:]
    assert ("--image-size" in words) == bool(options)
    call = ghnq(*words)
    assert call.code == 0, call.err
    (verify,) = [line.partition(": ")[2] for line in call.out.splitlines() if line.startswith("prove it with")]
    call = ghnq(*shlex.split(verify)[1:], "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["agreement"] in (1.0, 100.0)
