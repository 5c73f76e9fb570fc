"""Drawings: well-formed, complete, without overlaps, whole or absent."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from torch import nn

from ghnq.errors import GraphError
from ghnq.graph import ArchGraph, Node, trace
from ghnq.graph.drawing.draw import draw
from ghnq.graph.drawing.layout import layout
from ghnq.graph.drawing.svg import describe, label, quantity, stride_of, svg
from ghnq.models import load_model
from tests.graph.random_networks import Program, programs
from tests.graph.test_ir import GRAPH

pytestmark = pytest.mark.filterwarnings("ignore::ghnq.errors.GhnqWarning")
SVG = "{http://www.w3.org/2000/svg}"


def boxes(text: str) -> dict[int, tuple[float, float, float, float]]:
    """The rectangle of every node: left, top, right, bottom."""
    found = {}
    for group in ElementTree.fromstring(text).iter(f"{SVG}g"):
        if group.get("class") == "node":
            rect = group.find(f"{SVG}rect")
            assert rect is not None
            x, y, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            found[int(group.attrib["data-node"])] = (x, y, x + width, y + height)
    return found


@settings(max_examples=30)
@given(programs())
def test_boxes_do_not_overlap(program: Program) -> None:
    graph = trace(program, (3, 8, 8))
    text = svg(graph, "a program")
    found = boxes(text)
    assert sorted(found) == list(range(len(graph)))
    width, height = map(float, ElementTree.fromstring(text).attrib["viewBox"].split()[2:])
    rectangles = sorted(found.values())
    for i, (left, top, right, bottom) in enumerate(rectangles):
        assert left >= 0
        assert top >= 0
        assert right <= width
        assert bottom <= height
        for other in rectangles[i + 1 :]:
            assert other[0] >= right or other[1] >= bottom or other[3] <= top, "two boxes overlap"


@settings(max_examples=30)
@given(programs())
def test_segments_lead_along_the_edges(program: Program) -> None:
    graph = trace(program, (3, 8, 8))
    placed = layout(graph, [(60.0, 20.0)] * len(graph))
    into = {segment.end: segment for segment in placed.segments if placed.boxes[segment.end].node < 0}
    ends = set()
    for segment in placed.segments:
        assert placed.boxes[segment.end].level == placed.boxes[segment.start].level + 1
        if placed.boxes[segment.end].node >= 0:
            start = segment.start
            while placed.boxes[start].node < 0:
                start = into[start].start
            ends.add((start, segment.end))
            assert segment.source == start
    assert ends == set(graph.edges)


def test_long_chains_are_drawn_in_several_columns() -> None:
    nodes = (Node("input", "input"), *(Node("bn", "n", (1, 1, 1, 1), (1, 2, 2)) for _ in range(199)))
    graph = ArchGraph(nodes, tuple((i, i + 1) for i in range(199)), (), (1, 2, 2), 1)
    width, height = map(float, ElementTree.fromstring(svg(graph, "chain")).attrib["viewBox"].split()[2:])
    assert 0.7 < width / height < 3


def test_labels() -> None:
    assert label(GRAPH.nodes[0]) == ("input", "3×8×8")
    assert label(GRAPH.nodes[1]) == ("conv 3×3", "3 → 4 · 8×8")
    assert label(GRAPH.nodes[2]) == ("bn",)
    assert label(GRAPH.nodes[4]) == ("linear", "4 → 10")
    assert label(Node("sep_conv", "x", (8, 1, 5, 5), (8, 4, 4))) == ("sep conv 5×5", "8 · 4×4")
    assert label(Node("max_pool", "x", (1, 1, 2, 3), (8, 4, 4))) == ("max pool 2×3", "8×4×4")
    assert label(Node("glob_avg", "x", None, (8, 1, 1))) == ("global avg", "8×1×1")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (3456, "3.46 k"), (26657408, "26.7 M"), (10**9, "1 G")]
)
def test_quantities(number: int, text: str) -> None:
    assert quantity(number) == text


def test_the_facts_are_in_the_picture() -> None:
    text = "".join(ElementTree.fromstring(svg(GRAPH, "My <net> & 'co'")).itertext())
    assert "My <net> & 'co'" in text
    assert "6 nodes · 6 edges · 166 parameters · 6.95 k multiply-adds · input 3×8×8" in text
    assert "conv × 2" in text
    assert "fc.weight: 10×4 (class_weight)" in text
    assert "max pool" not in text


def test_files(tmp_path: Path) -> None:
    draw(GRAPH, tmp_path / "a" / "net.svg", "one")
    draw(GRAPH, str(tmp_path / "net.HTML"), "<two>")
    assert len(boxes((tmp_path / "a" / "net.svg").read_text(encoding="utf-8"))) == len(GRAPH)
    page = (tmp_path / "net.HTML").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<title>&lt;two&gt;</title>" in page
    assert set(re.findall(r"https?://[^'\" ]+", page)) == {"http://www.w3.org/2000/svg"}
    picture = page[page.index("<svg") : page.index("</svg>") + 6]
    assert len(boxes(picture)) == len(GRAPH)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "net.HTML", "net.svg"]


@pytest.mark.parametrize("name", ["net.png", "net", "net.svg.gz"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(GraphError, match=r"the suffix must be \.svg or \.html, got '.*'"):
        draw(GRAPH, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_drawing_twice_gives_the_same_picture() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    assert svg(trace(module, (3, 8, 8)), "x") == svg(trace(module, (3, 8, 8)), "x")


@pytest.mark.parametrize("split", ["test", "dense", "bnfree"])
@pytest.mark.parametrize("index", range(4))
def test_strides_are_those_of_the_layers(split: str, index: int) -> None:
    module = load_model(f"convnets/{split}/{index}", input_shape=(3, 32, 32))
    graph = trace(module, (3, 32, 32))
    layers = dict(module.named_modules())
    strides = {
        i: layers[node.name].stride[0]
        for i, node in enumerate(graph.nodes)
        if isinstance(layers.get(node.name), nn.Conv2d) and node.op != "bias"
    }
    assert len(strides) > 3
    assert {i: stride_of(graph, i) for i in strides} == strides


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 0), (3, 2, 1), (5, 1, 0), (7, 2, 3), (2, 2, 0), (1, 2, 0)]
)
def test_strides_of_single_layers(kernel: int, stride: int, padding: int) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, kernel, stride, padding))
    graph = trace(module, (3, 32, 32))
    (index,) = [i for i, node in enumerate(graph.nodes) if node.name == "1" and node.op == "conv"]
    assert stride_of(graph, index) == stride
    assert describe(graph, index).splitlines()[0] == "1"
    assert f"stride: {stride}" in describe(graph, index)


def test_the_legend_has_the_order_of_the_graph() -> None:
    graph = trace(load_model("convnets/test/0", input_shape=(3, 32, 32)), (3, 32, 32))
    texts = [element.text or "" for element in ElementTree.fromstring(svg(graph, "x")).iter(f"{SVG}text")]
    shown = [text.split(" × ")[0] for text in texts if re.fullmatch(r"[a-z _]+ × \d+", text)]
    ops = list(dict.fromkeys(node.op for node in graph.nodes))
    names = {
        "sep_conv": "sep conv",
        "dil_conv": "dil conv",
        "max_pool": "max pool",
        "avg_pool": "avg pool",
        "glob_avg": "global avg",
    }
    assert shown == [names.get(op, op) for op in ops]
