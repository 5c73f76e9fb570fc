"""The table and its summary against numpy and Python's statistics; files; the JSON contract; pictures."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ghnq.errors import DataError
from ghnq.evaluation import Results, summary_table
from tests.evaluation.conftest import ABOUT, row

KEYS = ["split", "scheme", "architectures", "images", "mean", "sem", "max", "min", "drop_from_float32"]


def results(counts: dict[tuple[str, str], list[int]], images: int = 10) -> Results:
    """counts: for each split and scheme, the right answers of each architecture."""
    rows = [
        row(split, index, scheme, correct, images)
        for (split, scheme), column in counts.items()
        for index, correct in enumerate(column)
    ]
    return Results.from_rows(rows, ABOUT)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 360), st.integers(0, 360)), min_size=2, max_size=40),
)
def test_summary_is_the_formulas(pairs: list[tuple[int, int]]) -> None:
    in_float, quantized = [list(column) for column in zip(*pairs, strict=True)]
    made = results({("test", "float32"): in_float, ("test", "w4a8"): quantized}, images=360)
    first, second = made.summary_rows()
    for summary, column in ((first, in_float), (second, quantized)):
        percent = [100 * correct / 360 for correct in column]
        assert summary["mean"] == pytest.approx(statistics.fmean(percent), rel=1e-12)
        assert summary["sem"] == pytest.approx(statistics.stdev(percent) / len(percent) ** 0.5, rel=1e-9, abs=1e-12)
        assert summary["sem"] == pytest.approx(np.std(percent, ddof=1) / np.sqrt(len(percent)), rel=1e-12)
        assert (summary["max"], summary["min"]) == (max(percent), min(percent))
        assert (summary["architectures"], summary["images"]) == (len(pairs), 360)
    assert first["drop_from_float32"] == 0
    assert second["drop_from_float32"] == pytest.approx(first["mean"] - second["mean"], abs=1e-9)


def test_drop_is_per_architecture_and_null_without_float32() -> None:
    made = results({("test", "float32"): [9, 8], ("test", "w8a8"): [7, 8], ("deep", "w8a8"): [5]})
    assert made.table["drop_from_float32"].to_pylist() == pytest.approx([0, 0, 20, 0, None])
    drops = {(r["split"], r["scheme"]): r["drop_from_float32"] for r in made.summary_rows()}
    assert drops == {("test", "float32"): 0, ("test", "w8a8"): pytest.approx(10), ("deep", "w8a8"): None}


def test_one_architecture_has_no_standard_error() -> None:
    (summary,) = results({("test", "float32"): [7]}).summary_rows()
    assert summary["sem"] is None
    assert (summary["mean"], summary["max"], summary["min"]) == (70, 70, 70)


def test_document_is_the_contract() -> None:
    made = results({("test", "float32"): [9, 8], ("test", "w8a8"): [7, 8]})
    document = json.loads(json.dumps(made.document(), allow_nan=False))
    assert list(document) == ["checkpoint", "data", "protocol", "rows"]
    assert (document["checkpoint"], document["data"], document["protocol"]) == ("made-up", "nothing", "deploy")
    assert [list(r) for r in document["rows"]] == [KEYS, KEYS]
    assert document["rows"][1] == {
        "split": "test",
        "scheme": "w8a8",
        "architectures": 2,
        "images": 10,
        "mean": 75.0,
        "sem": pytest.approx(5.0),
        "max": 80.0,
        "min": 70.0,
        "drop_from_float32": pytest.approx(10.0),
    }


def test_files_hold_the_table_and_come_back(tmp_path: Path) -> None:
    made = results({("test", "float32"): [9, 8], ("wide", "w8a8"): [7, 8]})
    made.save(tmp_path)
    back = Results.load(tmp_path)
    assert back.table.equals(made.table)
    assert back.about == ABOUT
    assert back.document() == made.document()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {**ABOUT, "nonfinite": 0, "rows": made.document()["rows"]}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.parquet", "summary.json"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No results can be read"):
        Results.load(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"PAR1 but not for long")
    with pytest.raises(DataError, match="No results can be read"):
        Results.load(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "results.parquet")
    with pytest.raises(DataError, match="is not a table of ghnq results"):
        Results.load(tmp_path)


def printed(made: Results) -> str:
    console = Console(file=io.StringIO(), width=130)
    console.print(summary_table(made))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table_for_people() -> None:
    text = printed(results({("test", "float32"): [9, 8], ("test", "w8a8"): [7, 8], ("deep", "w8a8"): [3]}))
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["test", "float32", "2", "85.00", "±", "5.00", "90.00", "80.00"] in lines
    assert ["w8a8", "2", "75.00", "±", "5.00", "80.00", "70.00", "10.00"] in lines
    assert ["deep", "w8a8", "1", "30.00", "30.00", "30.00"] in lines
    assert "made-up on nothing, deploy protocol" in text
    assert "10 test images" in text
    assert "NaN" not in text


def test_a_drop_of_nothing_has_no_sign() -> None:
    text = printed(results({("test", "float32"): [500], ("test", "w8a8"): [501]}, images=10**6))
    assert "-0.00" not in text
    assert "0.00 │" in text


def test_table_says_where_logits_were_no_numbers() -> None:
    broken = row(correct=0)
    broken["nonfinite"] = 1234
    assert "1,234 images have a NaN or infinite logit" in printed(Results.from_rows([broken], ABOUT))
