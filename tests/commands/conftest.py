"""Calls of the command line: quick ones in this process, and real ones in a process of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ghnq.__main__ import main

MODELS = """
import torch
from torch import nn

print("the file is imported")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        print("the model is made")
        self.conv = nn.Conv2d(3, 20, 3, padding=1)
        self.norm = nn.BatchNorm2d(20)
        self.head = nn.Linear(20, 10)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

def nothing_to_predict():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

class Fails(Net):
    def forward(self, x):
        return self.head({}["x"])

class Scaled(Net):
    "Two parameters besides the layers; one of them leads nowhere."

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(20, 1, 1))
        self.spare = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.head((self.norm(self.conv(x)) * self.gamma).mean((2, 3)))

def broken():
    raise RuntimeError("the user's own mistake")
"""


@dataclass(frozen=True)
class Call:
    """How a command ended, and what it said where."""

    code: int
    out: str
    err: str


Cli = Callable[..., Call]


@pytest.fixture
def ghnq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Runs `ghnq` with the given words in this process."""
    monkeypatch.setenv("COLUMNS", "120")
    handler = signal.getsignal(signal.SIGTERM)

    def call(*words: object) -> Call:
        monkeypatch.setattr(sys, "argv", ["ghnq", *map(str, words)])
        capsys.readouterr()
        code = main()
        captured = capsys.readouterr()
        return Call(code, captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's file with models, which prints to stdout wherever it can; the working directory is its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "models.py"
    file.write_text(MODELS)
    return file


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hypernetwork as small as it gets, untrained, for the digits."""
    import torch

    from ghnq.data import load
    from ghnq.hypernet import GHN, GHNConfig, Task

    digits = load("digits")
    torch.manual_seed(0)
    task = Task(
        data="digits",
        image_shape=digits.input_shape,
        mean=tuple(digits.mean.tolist()),
        std=tuple(digits.std.tolist()),
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    GHN(GHNConfig(hidden=8, max_shape=(16, 16, 3, 3)), task=task).save_pretrained(folder)
    return folder


def start(*words: object, cwd: Path, **options: object) -> "subprocess.Popen[str]":
    """Starts `ghnq` as a process of its own, in `cwd`."""
    return subprocess.Popen(
        [sys.executable, "-m", "ghnq", *map(str, words)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}, **options,  # type: ignore[call-overload]
    )  # fmt: skip
