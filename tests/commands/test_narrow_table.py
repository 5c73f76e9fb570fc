"""Narrow terminals: no word and no number is cut or broken, in tables of every command and in help."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ghnq.commands.narrow_table import fitted

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a_layer_with_a_long_name = nn.Conv2d(1, 30, 3, padding=1)
        self.norm = nn.BatchNorm2d(30)
        self.head = nn.Linear(30, 10)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.a_layer_with_a_long_name(x))).mean((2, 3)))
"""
EXPORTED = "export nets.py:Net --checkpoint {ghn} --scheme w8a8 --out net"


def printed(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in fitted(table, console):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def table() -> Table:
    made = Table(title="accuracies of [bold]two[/]", caption="in percent")
    made.add_column("model")
    made.add_column("")
    made.add_column("accuracy", no_wrap=True)
    made.add_column("drop from\nfloat32", justify="right")
    made.add_column("multiply-adds")
    made.add_row("m.py:Net", "float32", "66.67", "", "202,768")
    made.add_row("", Text("w4a4"), "41.67", "25.00", "")
    return made


@pytest.mark.parametrize("width", [30, 40, 52])
def test_a_row_is_a_block_where_a_word_does_not_fit(table: Table, width: int) -> None:
    text = printed(table, width)
    assert [line.rstrip() for line in text.splitlines()] == [
        "accuracies of two",
        "",
        "model: m.py:Net",
        "float32",
        "accuracy: 66.67",
        "multiply-adds: 202,768",
        "",
        "model: m.py:Net",
        "w4a4",
        "accuracy: 41.67",
        "drop from float32: 25.00",
        "",
        "in percent",
    ]


@pytest.mark.parametrize("width", [53, 60])
def test_the_frame_goes_first(table: Table, width: int) -> None:
    text = printed(table, width)
    assert [line.split() for line in text.splitlines() if line.strip()] == [
        ["accuracies", "of", "two"],
        ["drop", "from"],
        ["model", "accuracy", "float32", "multiply-adds"],
        ["─" * 53],
        ["m.py:Net", "float32", "66.67", "202,768"],
        ["w4a4", "41.67", "25.00"],
        ["in", "percent"],
    ]
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [61, 100])
def test_a_table_that_fits_is_a_table(table: Table, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    assert list(fitted(table, console)) == [table]


def test_an_ellipsis_of_the_cells_is_no_cut() -> None:
    table = Table("name")
    table.add_row("a…")
    console = Console(file=io.StringIO(), width=40)
    assert list(fitted(table, console)) == [table]


def test_names_may_be_broken_where_the_column_says_so() -> None:
    table = Table()
    table.add_column("layer", overflow="fold")
    table.add_column("weights", justify="right")
    table.add_row("features." * 8 + "conv", "1,234,567")
    text = printed(table, 40)
    assert "1,234,567" in text
    assert "".join(re.findall("│ ([a-z.]+) *│", text)) == "features." * 8 + "conv"


def call(words: str, folder: Path, columns: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ghnq", *words.split()], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": str(columns)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "checkpoints",
        "spaces show convnets/test/1",
        "evaluate {ghn} --splits test,deep --limit 2 --images 40 --schemes float32,w4a8",
        "score nets.py:Net --checkpoint {ghn} --images 40 --schemes float32,w4a8",
        "rank nets.py:Net convnets/test/6 --checkpoint {ghn} --scheme w4a8 --images 60 --minutes 0.02 --workers 1",
        "search --scheme w8a8 --trials 3 --checkpoint {ghn} --images 40 --workers 1 --out found-{columns}",
        "sensitivity nets.py:Net --checkpoint {ghn} --images 40",
        "mixed nets.py:Net --checkpoint {ghn} --budget-bits 5 --images 40",
        "finetune nets.py:Net --init {ghn} --data digits --epochs 0.1 --scheme w8a8 --out tuned-{columns}",
        "verify net.onnx",
        "verify net.pt2",
        "profile net.onnx --repeats 3",
    ],
)
def test_commands_say_the_same_in_forty_columns(words: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    for suffix in re.findall(r"net(\.\w+)", words):
        if suffix != ".py":
            call(EXPORTED.format(ghn=tiny_checkpoint) + suffix, tmp_path, 140)
    wide, narrow = (
        call(words.format(ghn=tiny_checkpoint, columns=columns), tmp_path, columns) for columns in (140, 40)
    )
    if words.startswith("profile"):  # times differ from run to run, and so do the words below them
        wide = wide.partition("median")[0]
    if words.startswith("finetune"):
        wide = wide.partition("steps (")[0]
    numbers = set(re.findall(r"(?<![^\s│┃])[-\d][\d,.]*(?=[\s│┃])", wide))
    assert numbers <= set(re.findall(r"(?<![^\s│┃])[-\d][\d,.]*(?=[\s│┃])", narrow))
    headings = re.findall(r"[a-z-]+", " ".join(line for line in wide.splitlines() if line.startswith("┃")))
    assert set(headings) <= set(re.findall("[a-z-]+", narrow))
    assert "…" not in narrow


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 71, 80])
def test_help_names_every_option_whole(tmp_path: Path, columns: int) -> None:
    wide, narrow = (set(re.findall("--[a-z-]+", call("search --help", tmp_path, width))) for width in (140, columns))
    assert narrow == wide
