"""Standard streams that are full, closed, of few characters, or written to behind our back: in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOISY = """
import os, subprocess, sys
from torch import nn

os.write(1, b"straight to the descriptor\\n")
subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
print("printed")

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `ghnq` in a shell: GHNQ stands for it."""
    command = command.replace("GHNQ", f"{sys.executable} -m ghnq")
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_json_stays_one_document_whatever_a_model_writes(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    done = run("GHNQ score noisy.py:net --images 20 --schemes float32 --json", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["model"] == "noisy.py:net"
    for text in ("straight to the descriptor", "from a child", "printed"):
        assert text in done.stderr


@pytest.mark.parametrize("words", ["checkpoints", "checkpoints --json"])
def test_a_full_disk_behind_stdout_is_told(tmp_path: Path, words: str) -> None:
    done = run(f"GHNQ {words} > /dev/full", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: the output cannot be written (No space left on device)")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_closed_streams(tmp_path: Path) -> None:
    done = run("GHNQ checkpoints --json >&-; echo $?", tmp_path)
    assert (done.stdout, done.stderr) == ("0\n", "")
    done = run("GHNQ checkpoints --jsno 2>&- >&- <&-; echo $?", tmp_path)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    done = run("GHNQ spaces show convnets/test/3 --json | head -1", tmp_path)
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_an_encoding_without_our_characters(tmp_path: Path) -> None:
    done = run("GHNQ checkpoints", tmp_path, PYTHONIOENCODING="ascii", LANG="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "cifar10" in done.stdout
    (tmp_path / "große klassen").mkdir()
    done = run("GHNQ score convnets/test/1 --data 'große klassen' --json", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
