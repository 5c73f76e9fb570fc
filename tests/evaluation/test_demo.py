"""The demo with a small checkpoint: everything it promises lies in the folder, made anew each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ghnq.data import load
from ghnq.errors import CheckpointError
from ghnq.evaluation import Results
from ghnq.evaluation.demo import demo
from ghnq.hypernet import Task
from tests.small_networks import small_ghn


def test_demo_leaves_table_and_drawing(tmp_path: Path) -> None:
    ghn, digits = small_ghn(), load("digits")
    ghn.task = Task(
        data="digits", image_shape=(1, 8, 8), mean=tuple(digits.mean.tolist()), std=tuple(digits.std.tolist())
    )
    ghn.save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.parquet").write_text("of an earlier demo")
    shown = demo(tmp_path / "out", checkpoint=str(tmp_path / "checkpoint"), architectures=2, workers=1)
    assert [(row["split"], row["scheme"]) for row in shown.results.summary_rows()] == [
        ("test", scheme) for scheme in ("float32", "w8a8", "w4a8", "w4a4")
    ]
    assert all((row["architectures"], row["images"]) == (2, 360) for row in shown.results.summary_rows())
    assert Results.load(tmp_path / "out").table.equals(shown.results.table)
    assert shown.drawing.read_text().lstrip().startswith(("<svg", "<?xml"))
    names = {"results.parquet", "summary.json", "architecture.svg"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names


def test_demo_without_a_checkpoint_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint 'digitz'"):
        demo(tmp_path / "out", checkpoint="digitz")
    assert not (tmp_path / "out").exists()
