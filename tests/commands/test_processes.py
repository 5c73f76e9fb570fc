"""Real processes: exit codes, signals, closed pipes, and whose traceback one sees."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import start

SLOW = """
import pathlib, time
from torch import nn

def slow():
    pathlib.Path("started").touch()
    time.sleep(60)
"""


def wait_for(path: Path, process: "subprocess.Popen[str]", seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"{path} did not appear")
        time.sleep(0.05)


def test_the_users_own_exception_keeps_its_traceback(models: Path) -> None:
    process = start("draw", "models.py:broken", "-o", "a.svg", cwd=models.parent)
    _, err = process.communicate()
    assert process.returncode == 1
    assert 'models.py", line' in err
    assert "RuntimeError: the user's own mistake" in err
    assert "typer" not in err
    assert not (models.parent / "a.svg").exists()


def test_a_mistake_ends_with_2(tmp_path: Path) -> None:
    process = start("spaces", "show", "convnets/tset/1", cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert "did you mean 'test'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_in_the_middle_of_a_command(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "models.py").write_text(SLOW)
    process = start("draw", "models.py:slow", "-o", "a.svg", cwd=tmp_path)
    wait_for(tmp_path / "started", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*.svg*"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_in_the_middle_of_training(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "name: tiny\ndata: digits\nsteps: 100000\nmeta_batch: 1\nlog_every: 1\nbatch_size: 4\n"
        "hypernet: {hidden: 8, max_shape: [16, 16, 3, 3]}\n"
        "validation: {architectures: 1, images: 16, calibration: 16}\nworkers: 1\n"
    )
    process = start("train", "recipe.yaml", "--out", "run", cwd=tmp_path)
    log = tmp_path / "run" / "log.jsonl"
    wait_for(log, process)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "--resume" in err
    trained = len(log.read_text().splitlines())

    again = start("train", "recipe.yaml", "--out", "run", "--resume", "--max-minutes", "0.001", cwd=tmp_path)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert len(log.read_text().splitlines()) >= trained


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        [sys.executable, "-m", "ghnq", "--version"], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == ""
