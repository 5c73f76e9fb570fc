"""The page: one file that loads nothing, with all data, whatever names there are."""

from __future__ import annotations

import re
from itertools import pairwise
from math import prod
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ghnq import trace
from ghnq.errors import GhnqError
from ghnq.graph import ArchGraph
from ghnq.report import read_results, write_page
from ghnq.report.architectures import most_live_elements
from ghnq.report.page import LARGEST_PAGE, render
from tests.report import folders
from tests.report.pages import content_of, rows_of


def page_of(tmp_path: Path, *paths: Path) -> Path:
    documents, _ = read_results(paths)
    write_page(documents, tmp_path / "page.html", command="ghnq report")
    return tmp_path / "page.html"


def test_the_page_has_everything_and_loads_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, *folders.every_kind(tmp_path))
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    own = text.replace((Path(__file__).parents[2] / "src/ghnq/report/plotly/plotly-basic.min.js").read_text(), "")
    assert len(own) < 200_000  # the library is inlined once
    assert "plotly.js (basic" not in own
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", own)
    assert "@import" not in own
    assert page.stat().st_size < LARGEST_PAGE
    content = content_of(page)
    assert [document["kind"] for document in content["documents"]][:2] == ["evaluate", "evaluate"]
    first = rows_of(content["documents"][0])
    assert first[0]["architecture"] == "convnets/test/0"
    assert first[0]["accuracy"] == 90.0
    assert first[0]["activation_bytes"] == 4 * next(
        row["activation_bytes"] for row in first if row["scheme"] == "w4a8" and row["architecture"] == "convnets/test/0"
    )
    assert set(content["drawings"]) >= {"convnets/test/0", "convnets/test/1", "convnets/deep/0"}


def test_names_cannot_end_the_script(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    folder = folders.sensitivity(tmp_path / "a", model=evil)
    documents, _ = read_results([folder])
    write_page(documents, tmp_path / "page.html", title=evil, command=evil)
    text = (tmp_path / "page.html").read_text()
    assert "alert(1)</script>" not in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert content_of(tmp_path / "page.html")["documents"][0]["layers"]["model"] == evil
    assert len(re.findall(r"<script\b", text.replace("\\<script", ""))) >= 3


@settings(max_examples=30)
@given(st.text())
def test_any_title_is_text(title: str) -> None:
    page = render(title, {"title": title})
    head = page[: page.index("</title>")]
    assert "<script" not in head
    assert page.count('<script id="data"') == 1
    assert "{{" not in page[page.index("<body>") : page.index('<script id="data"')].replace(title, "")


def test_a_page_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghnq.report.page.LARGEST_PAGE", 1000)
    with pytest.raises(GhnqError, match="fewer folders"):
        page_of(tmp_path, folders.finetune(tmp_path / "a"))
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_fifty_thousand_rows_fit(tmp_path: Path) -> None:
    numbers = range(12_500)
    correct = {
        ("train", scheme): [(7919 * i + 31 * n) % 201 for i in numbers]
        for n, scheme in enumerate(("float32", "w8a8", "w4a8", "w4a4"))
    }
    page = page_of(tmp_path, folders.evaluation(tmp_path / "a", correct))
    assert page.stat().st_size < LARGEST_PAGE
    assert len(rows_of(content_of(page)["documents"][0])) == 50_000


def by_hand(graph: ArchGraph) -> int:
    """The same as `most_live_elements`, by the definition: for each node, what is needed at that time."""
    needed = []
    for now in range(len(graph.nodes)):
        live = {
            node for node in range(now)
            if any(reader >= now for reader in graph.successors[node]) or not graph.successors[node]
        }  # fmt: skip
        if graph.nodes[now].op not in ("bn", "bias"):
            live.add(now)
        needed.append(sum(prod(graph.nodes[node].output_shape) for node in live))
    return max(needed)


def test_activations_of_a_chain_are_two_neighbours() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.ReLU())
    chain.append(nn.Conv2d(2, 8, 3, padding=1))
    graph = trace(chain, (1, 8, 8))
    sizes = [64 * channels for channels in (1, 4, 2, 8)]
    assert most_live_elements(graph) == max(a + b for a, b in pairwise(sizes))


@pytest.mark.parametrize("index", range(8))
def test_activations_that_are_live_at_once(index: int) -> None:
    from ghnq.models import load_model

    graph = trace(load_model(f"convnets/test/{index}", input_shape=(3, 32, 32)), (3, 32, 32))
    assert most_live_elements(graph) == by_hand(graph)
