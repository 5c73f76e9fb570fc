"""Two processes at the same moment in one folder: both work, or one is told."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from ghnq.files import one_writer
from tests.commands.conftest import Call, start
from tests.commands.test_score import NETS

RECIPE = (
    "name: tiny\ndata: digits\nsteps: 3\nmeta_batch: 1\nbatch_size: 4\nsave_every: 1\nworkers: 1\ndevice: cpu\n"
    "hypernet: {hidden: 8, max_shape: [16, 16, 3, 3]}\n"
    "validation: {architectures: 1, images: 16, calibration: 16, every: 3}\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def at_once(folder: Path, *words: object) -> list[Call]:
    """Runs a command in two processes at the same moment."""
    processes = [start(*words, cwd=folder) for _ in range(2)]
    calls = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        calls.append(Call(process.returncode, out, err))
        assert "Traceback" not in err
    return calls


def check_told(calls: list[Call], *reasons: str) -> None:
    """At least one has done it; whoever has not says why."""
    assert {call.code for call in calls} <= {0, 2}, calls
    assert any(call.code == 0 for call in calls), calls
    for call in calls:
        assert call.code == 0 or any(reason in call.err for reason in reasons), call.err


@pytest.mark.slow
def test_one_file(folder: Path, tiny_checkpoint: Path) -> None:
    calls = at_once(folder, "predict", "nets.py:Digits", "--checkpoint", tiny_checkpoint, "--out", "o/net.safetensors")
    assert [call.code for call in calls] == [0, 0]
    assert load_file(folder / "o" / "net.safetensors")["head.weight"].shape == (10, 12)
    assert [file.name for file in (folder / "o").iterdir()] == ["net.safetensors"]


@pytest.mark.slow
def test_one_fine_tuning_run(folder: Path) -> None:
    words = ["finetune", "nets.py:Digits", "--init", "kaiming", "--data", "digits", "--epochs", 0.3, "--lr", 0.05]
    calls = at_once(folder, *words, "--device", "cpu", "--out", "run", "--json")
    check_told(calls, "is being trained in by another process", "already holds a run")
    assert sum(call.code == 0 for call in calls) == 1
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["after"] == json.loads(next(call.out for call in calls if call.code == 0))["after"]


@pytest.mark.slow
def test_one_training_run(folder: Path) -> None:
    calls = at_once(folder, "train", "recipe.yaml", "--out", "run")
    check_told(calls, "is being trained in by another process", "already holds a run")
    assert sum(call.code == 0 for call in calls) == 1
    steps = [json.loads(line)["step"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "evaluate", "sensitivity", "mixed"])
def test_one_study(folder: Path, tiny_checkpoint: Path, command: str) -> None:
    words: list[object] = {
        "score": ["score", "nets.py:Digits", "--checkpoint", tiny_checkpoint, "--images", 40],
        "evaluate": ["evaluate", tiny_checkpoint, "--limit", 2, "--images", 40, "--schemes", "float32,w4a8"],
        "sensitivity": ["sensitivity", "nets.py:Digits", "--checkpoint", tiny_checkpoint, "--images", 40],
        "mixed": ["mixed", "nets.py:Digits", "--checkpoint", tiny_checkpoint, "--images", 40, "--budget-bits", 5],
    }[command]
    calls = at_once(folder, *words, "--out", "study", "--json")
    check_told(calls, "is in use by another")
    documents = [json.loads(call.out) for call in calls if call.code == 0]
    study = folder / "study"
    if command in ("score", "evaluate"):
        assert json.loads((study / "summary.json").read_text())["rows"] == documents[0]["rows"]
        assert len(pq.read_table(study / "results.parquet")) == 4
    else:
        kept = json.loads((study / f"{command}.json").read_text())
        assert kept["model"] == documents[0]["model"]
    assert (study / "report.html").stat().st_size > 100_000
    assert not [file.name for file in study.iterdir() if file.name.startswith(".")]


@pytest.mark.slow
def test_rows_that_another_process_writes(folder: Path, tiny_checkpoint: Path) -> None:
    (folder / "study").mkdir()
    with (folder / "study" / "rows.jsonl").open("w") as rows:
        fcntl.flock(rows, fcntl.LOCK_EX)
        process = start("evaluate", tiny_checkpoint, "--limit", 1, "--out", "study", cwd=folder)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "is in use by another evaluation; wait for it, or give another folder" in " ".join(err.split())
    assert (folder / "study" / "rows.jsonl").read_text() == ""


WRITES = """
import sys, time
from pathlib import Path
from ghnq.files import one_writer, write_text

folder, name = Path(sys.argv[1]), sys.argv[2]
for number in range(20):
    with one_writer(folder):
        for file in "ab":
            write_text(folder / file, f"{name} {number}")
            time.sleep(0.001)
"""


@pytest.mark.slow
def test_files_that_belong_together_are_of_one_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES, str(tmp_path / "both")]
    processes = [subprocess.Popen([*command, name], env=os.environ) for name in ("one", "two", "three")]
    seen = 0
    while any(process.poll() is None for process in processes):
        with one_writer(tmp_path / "both"):
            texts = [file.read_text() for file in map((tmp_path / "both").joinpath, "ab") if file.exists()]
        assert len(set(texts)) <= 1, texts
        seen += len(texts)
        time.sleep(0.002)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert seen > 0
    assert sorted(file.name for file in (tmp_path / "both").iterdir()) == ["a", "b"]


def test_a_writer_waits_for_the_other(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with one_writer(tmp_path):
            order.append("second")

    with one_writer(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
