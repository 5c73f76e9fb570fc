"""`ghnq report`, and the pages that other commands write."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from ghnq.search.signals import DEFAULT, SCREENING
from tests.report import folders
from tests.report.pages import content_of, rows_of

from .conftest import Cli

MODEL = "small.py:Small"
SMALL = """
from torch import nn

class Small(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
        )
"""


@pytest.fixture(autouse=True)
def small(models: Path) -> None:
    (models.parent / "small.py").write_text(SMALL)


def test_results_become_one_page(ghnq: Cli, tmp_path: Path) -> None:
    paths = folders.every_kind(tmp_path / "results")
    call = ghnq("report", *paths, "-o", tmp_path / "page.html", "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert [result["kind"] for result in document["results"]][2:4] == ["finetune", "train"]
    assert document["bytes"] == (tmp_path / "page.html").stat().st_size
    content = content_of(tmp_path / "page.html")
    assert content["command"].startswith("ghnq report ")
    people = ghnq("report", tmp_path / "results", "-o", tmp_path / "again.html")
    assert people.code == 0
    assert str(tmp_path / "again.html") in people.out
    assert len(content_of(tmp_path / "again.html")["documents"]) == len(paths)


def test_what_is_left_out_is_said(ghnq: Cli, tmp_path: Path) -> None:
    folders.mixed(tmp_path / "results" / "good")
    folders.write(tmp_path / "results" / "bad", "profile.json", "{")
    call = ghnq("report", tmp_path / "results", "-o", tmp_path / "page.html")
    assert call.code == 0
    assert "left out" in call.err
    assert "half-written" in content_of(tmp_path / "page.html")["notes"][0]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nowhere"], "does not exist"), (["results", "-o", "a.png"], ".html"), (["results"], "it is empty")],
)
def test_wrong_words_end_with_an_error(ghnq: Cli, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "results").mkdir()
    call = ghnq("report", *words)
    assert call.code == 2
    assert message in call.err
    assert "Traceback" not in call.err


def test_studies_write_folders_that_are_read_back(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    common = [MODEL, "--checkpoint", tiny_checkpoint, "--images", 20]
    for words in (
        ["sensitivity", *common, "--out", tmp_path / "layers"],
        ["mixed", *common, "--budget-bits", 5, "--out", tmp_path / "bits"],
        ["score", *common, "--schemes", "float32,w4a8", "--out", tmp_path / "scores"],
    ):
        call = ghnq(*words)
        assert call.code == 0, call.err
        assert "report.html" in call.out
    assert (tmp_path / "bits" / "scheme.yaml").is_file()
    call = ghnq("report", *(tmp_path / name for name in ("layers", "bits", "scores")), "-o", tmp_path / "page.html")
    assert call.code == 0, call.err
    content = content_of(tmp_path / "page.html")
    assert [document["kind"] for document in content["documents"]] == ["sensitivity", "mixed", "score"]
    assert all(
        document["commands"][0].startswith(f"ghnq {document['kind']} {MODEL}") for document in content["documents"]
    )
    assert MODEL in content["drawings"]  # from the stored graph: the report does not run the file
    layers = content["documents"][0]["layers"]["rows"]
    assert [row["layer"] for row in layers] == ["0", "5"]
    assert (
        rows_of(content["documents"][2])[1]["weight_bytes"] == rows_of(content["documents"][2])[0]["weight_bytes"] / 8
    )


def test_a_report_runs_no_code_of_the_user(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path, models: Path) -> None:
    words = ["score", MODEL, "--checkpoint", tiny_checkpoint, "--images", 20, "--schemes", "w8a8"]
    assert ghnq(*words, "--out", tmp_path / "scores").code == 0
    (models.parent / "small.py").write_text("raise SystemExit('this must not run')")
    assert ghnq("report", tmp_path / "scores", "-o", tmp_path / "page.html").code == 0


@pytest.mark.slow
def test_an_evaluation_and_a_demo_have_a_page(
    ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ghnq.evaluation.demo import demo

    monkeypatch.setattr(
        "ghnq.commands.demo.run_demo", partial(demo, checkpoint=str(tiny_checkpoint), architectures=2, workers=1)
    )
    assert ghnq("demo", "--out", tmp_path / "demo").code == 0
    words = ["evaluate", tiny_checkpoint, "--limit", 2, "--images", 20, "--schemes", "float32,w4a8"]
    assert ghnq(*words, "--out", tmp_path / "eval").code == 0
    for name in ("demo", "eval"):
        content = content_of(tmp_path / name / "report.html")
        (document,) = content["documents"]
        assert document["commands"][0].startswith("ghnq ")
        assert {row["architecture"] for row in rows_of(document)} == {"convnets/test/0", "convnets/test/1"}
        assert set(content["drawings"]) == {"convnets/test/0", "convnets/test/1"}


@pytest.mark.slow
def test_runs_have_their_commands_and_curves(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    call = ghnq(
        "finetune", MODEL, "--init", tiny_checkpoint, "--epochs", 0.5, "--scheme", "w8a8", "--out", tmp_path / "run"
    )
    assert call.code == 0, call.err
    (document,) = content_of(tmp_path / "run" / "report.html")["documents"]
    assert document["kind"] == "finetune"
    assert {row["split"] for row in rows_of(document)} == {"before training", "after training"}
    assert document["accuracies"]["setting"]["data_hash"]
    assert any(curve["name"] == "loss" for curve in document["curves"])


def test_rankings_and_searches_write_folders_that_are_read_back(
    ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    common = ["--checkpoint", tiny_checkpoint, "--images", 40, "--workers", 1, "--out"]
    limit = ["--max-macs", 200_000, "--by", "fitted"]
    rank = ghnq("rank", MODEL, "convnets/train", "--n", 8, "--scheme", "w4a8,float32", *limit, *common, tmp_path / "a")
    assert rank.code == 0, rank.err
    search = ghnq("search", "--scheme", "w4a8", "--trials", 3, *common, tmp_path / "b")
    assert search.code == 0, search.err
    for call, name in ((rank, "a"), (search, "b")):
        assert f"page: {tmp_path / name / 'report.html'}" in call.out.replace("\n", "")
        assert (tmp_path / name / "report.html").stat().st_size > 1_000_000
    assert ghnq("report", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "page.html").code == 0
    content = content_of(tmp_path / "page.html")
    ranked, searched = content["documents"]
    candidates = ranked["ranking"]["candidates"]
    document = json.loads((tmp_path / "a" / "ranking.json").read_text())
    assert candidates["model"].count(MODEL) == 1
    assert len(candidates["model"]) == document["candidates"] == 9
    assert candidates["limit"].count("--max-macs") == document["filtered"]["multiply_adds"] > 0
    assert all(
        (limit == "") == (value is not None)
        for limit, value in zip(candidates["limit"], candidates["value"], strict=True)
    )
    assert ranked["ranking"]["limits"] == {"--max-macs": 200_000}
    assert ranked["commands"][0].startswith("ghnq rank small.py:Small convnets/train --n 8")
    assert {row["scheme"] for row in rows_of(ranked)} == {"w4a8", "float32"}
    assert MODEL in content["drawings"]
    front = [name for name in searched["search"]["trials"]["model"] if name]
    assert len(searched["search"]["trials"]["model"]) == 3
    assert set(front) == {path.name for path in (tmp_path / "b" / "front").iterdir()}
    assert set(front) <= set(content["drawings"])
    assert [row["architecture"] for row in rows_of(searched)] == front


def test_the_rounds_of_a_ranking_have_their_signals(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    call = ghnq(
        "rank", "convnets/train", "--n", 10, "--top", 1, "--checkpoint", tiny_checkpoint, "--images", 40,
        "--minutes", 0.005, "--workers", 1, "--out", tmp_path / "a",
    )  # fmt: skip
    assert call.code == 0, call.err
    assert f"rounds: 10 by '{SCREENING}' on 40 images; 9 by '{DEFAULT}' on 40 images, 0.1 s of training; " in call.out
    (document,) = content_of(tmp_path / "a" / "report.html")["documents"]
    rounds = document["ranking"]["rounds"]
    assert [(row["candidates"], row["signal"]) for row in rounds] == [(10, SCREENING), (9, DEFAULT), (3, DEFAULT)]
    assert document["ranking"]["candidates"]["round"].count(3) == 3


def test_half_a_ranking_is_told(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", tiny_checkpoint, "--by", "fitted", "--workers", 1, "--out", tmp_path / "a")
    call = ghnq("rank", MODEL, *words)
    assert call.code == 0, call.err
    (tmp_path / "a" / "ranking.json").unlink()
    half = ghnq("report", tmp_path / "a", "-o", tmp_path / "page.html")
    assert half.code == 2
    assert "goes on from these when it is run again" in " ".join(half.err.split())
