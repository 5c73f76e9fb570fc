"""Long names in tables: they go on in the next line, none is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ghnq.commands.terminal import Terminal
from ghnq.evaluation import Results, summary_table
from ghnq.finetune import Result
from tests.report.folders import ABOUT, row

SCHEME = "w2a2+stem.conv=w8a8+classifier=w8a8"


def summary() -> Any:
    return summary_table(Results.from_rows([row(0, "float32", 50), row(0, SCHEME, 40)], ABOUT))


def fine_tuned() -> Any:
    accuracies = {"float32": 90.0, SCHEME: 80.0}
    return Result(
        model="m", origin=("init", "digits"), origin_sha256=None, data={"data": "digits"}, scheme=SCHEME, steps=1,
        epochs=1.0, seconds=1.0, lr=0.1,
        rollbacks=0, test_images=360, before=accuracies, after=accuracies, val_images=0, val=None, weights=Path("w"),
    ).table()  # fmt: skip


@pytest.mark.parametrize("columns", [50, 80])
@pytest.mark.parametrize("table", [summary, fine_tuned])
def test_no_name_is_cut(
    table: Any, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with Terminal(as_json=False) as terminal:
        terminal.finish(None, table())
    text = capsys.readouterr().out
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= columns
    lines = text.splitlines()
    assert SCHEME in text or any(SCHEME in "".join(cell) for cell in _columns(lines))


def _columns(lines: Sequence[str]) -> Sequence[list[str]]:
    """The parts of each column, from the first line to the last."""
    rows = [re.split("[│┃]", line)[1:-1] for line in lines if line[:1] in ("│", "┃")]
    return [[row[i].strip() for row in rows] for i in range(len(rows[0]))]
