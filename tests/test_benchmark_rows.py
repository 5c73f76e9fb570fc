"""Rows that a benchmark keeps belong to one checkpoint, which its name does not tell from an older one."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from ghnq.evaluation.provenance import weights_hash
from ghnq.hypernet import GHN

OLD = {"start": "predicted", "checkpoint": "digits", "checkpoint_sha256": "0" * 64}


def test_rows_of_another_checkpoint_are_neither_done_nor_shown(
    repo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = runpy.run_path(str(repo_root / "benchmarks" / "finetune_start.py"))
    own = OLD | {"checkpoint_sha256": weights_hash(GHN.from_pretrained("digits"))}
    without = {name: value for name, value in OLD.items() if name != "checkpoint_sha256"}
    assert [benchmark["is_of"](row, own["checkpoint_sha256"]) for row in (own, OLD, without)] == [True, False, False]
    cell = {"epochs": 1.0, "seed": 0, "scheme": "w4a8", "architecture": "convnets/test/8", "lr": 0.0, "images": 99}
    rows: list[dict[str, Any]] = [
        cell | OLD | {"test": 11.0, "val": 1.0},
        cell | own | {"test": 55.0, "val": 1.0},
        cell | {"start": "kaiming", "checkpoint": "cifar10", "test": 33.0, "val": 1.0},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len({benchmark["key"](row) for row in rows[:2]}) == 1
    benchmark["main"]("digits", "digits", tmp_path, table=True)
    printed = capsys.readouterr().out
    assert "| 55.0 | 33.0 | +22.0 |" in printed
    assert "11.0" not in printed


@pytest.mark.slow
def test_transfer_measures_a_row_of_another_checkpoint_again(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [str(repo_root / "benchmarks"), *sys.path])
    main = runpy.run_path(str(repo_root / "benchmarks" / "transfer.py"))["main"]
    out = tmp_path / "rows.json"
    words: dict[str, Any] = {"data": "digits", "networks": "convnets/test/5", "epochs": "0", "images": 40, "out": out}
    main("digits", **words)
    first = json.loads(out.read_text())
    assert [row["start"] for row in first] == ["transferred", "kaiming_solved", "kaiming"]
    out.write_text(json.dumps([row | ({"checkpoint_sha256": "0"} if "checkpoint" in row else {}) for row in first]))
    main("digits", **words)
    again = json.loads(out.read_text())
    assert again[3:] == [first[0]]
    main("digits", **words)
    assert json.loads(out.read_text()) == again
