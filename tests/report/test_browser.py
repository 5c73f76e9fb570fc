"""The page in headless Chromium: no errors, marks in every figure, filters, clicks, keyboard, phone, dark.

Without a browser these tests are skipped with the reason; where GHNQ_BROWSER is `required`, as in CI, they fail.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ghnq.report import read_results, write_page
from tests.report import folders

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


def _without(reason: str) -> None:
    if os.environ.get("GHNQ_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _without("needs playwright: pip install 'ghnq[test]'")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        _without("needs a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens the page of result folders; at the end nothing may have been logged, failed, or loaded from elsewhere."""
    said: list[str] = []
    contexts = []

    def open_(*paths: Path, width: int = 1280, theme: str = "light") -> Any:
        file = tmp_path / "page.html"
        documents, _ = read_results(paths)
        write_page(documents, file, command="ghnq report")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: None if local(request.url) else said.append(f"loaded {request.url}"))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        return page

    def local(url: str) -> bool:
        return url.startswith(("file:", "data:", "blob:"))

    yield open_
    for context in contexts:
        context.close()
    assert said == []


def marks(page: Any) -> dict[str, int]:
    """The number of marks in each figure that is shown, by the id of the figure."""
    count = """figures => figures.map(figure => [figure.id, figure.querySelector(".plot").hidden ? -1 :
        figure.querySelectorAll(".plot .point, .plot path.js-line").length])"""
    found = page.eval_on_selector_all("figure:has(.plot)", count)
    return {name: number for name, number in found if number >= 0}


def cells(page: Any, figure: str) -> list[list[str]]:
    """The cells of the table of a figure, without the commas of thousands."""
    page.eval_on_selector_all(f"#{figure} details", "all => all.forEach(each => { each.open = true; })")
    page.wait_for_selector(f"#{figure} table")
    read = """rows => rows.map(row => [...row.children].map(cell => cell.textContent)
        .map(text => (/^[\\d,]+$/.test(text) ? text.replaceAll(",", "") : text)))"""
    rows: list[list[str]] = page.eval_on_selector_all(f"#{figure} tbody tr", read)
    return rows


def click_first_point(page: Any, figure: str) -> None:
    """Clicks on the mark that a reader would click on: the pointer is moved there first."""
    point = page.locator(f"#{figure} .scatterlayer .point").first
    point.scroll_into_view_if_needed()
    page.evaluate("document.getElementById('filters').style.position = 'static'")
    box = point.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 3, y - 3)
    page.mouse.move(x, y)
    page.wait_for_selector(f"#{figure} .hoverlayer .hovertext")
    page.mouse.click(x, y)


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_every_figure_has_marks_and_fits(open_page: Open, tmp_path: Path, width: int, theme: str) -> None:
    page = open_page(*folders.every_kind(tmp_path), width=width, theme=theme)
    found = marks(page)
    assert {
        "accuracy-1-distribution",
        "accuracy-1-drop",
        "accuracy-1-cost",
        "accuracy-1-paired",
        "costs-figure",
    } <= set(found)
    assert {"curve-val", "curve-loss", "curve-lr", "layers-4", "layers-5"} <= set(found)
    assert {"ranking-7-signal", "ranking-7-budget", "ranking-7-worth"} <= set(found)
    assert {"search-1-objectives", "search-1-hypervolume", "search-1-progress"} <= set(found)
    assert {name for name, number in found.items() if number == 0} == set()
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing is wider than the screen
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is (theme == "dark")


@pytest.mark.parametrize("width", [1280, 390])
def test_ticks_of_logarithmic_axes_are_numbers_and_legends_are_off_the_plot(
    open_page: Open, tmp_path: Path, width: int
) -> None:
    page = open_page(*folders.every_kind(tmp_path), width=width)
    for axis in (
        "accuracy-1-cost .xtick", "ranking-7-signal .xtick", "ranking-7-budget .xtick", "ranking-7-budget .ytick",
        "search-1-objectives .xtick", "curve-gradient_norm .ytick",
    ):  # fmt: skip
        texts = page.eval_on_selector_all(f"#{axis} text", "all => all.map(each => each.textContent)")
        assert len(texts) >= 3, axis
        assert [text for text in texts if not re.fullmatch(r"[\d.]+( ?[kMG]?B?)", text)] == [], axis
    boxes = page.eval_on_selector_all(
        ".plot:has(.legend):has(.nsewdrag)",
        """plots => plots.map(plot => [plot.closest('figure').id,
        ...['.legend', '.nsewdrag'].map(each => plot.querySelector(each).getBoundingClientRect())])""",
    )
    assert len(boxes) >= 6
    assert [name for name, legend, plot in boxes if legend["bottom"] > plot["top"] + 1] == []


def test_ticks_of_a_narrow_range_differ(open_page: Open, tmp_path: Path) -> None:
    sizes = [(50.0 + i, 1_000_000 + 7 * i, 500) for i in range(4)]
    page = open_page(folders.search(tmp_path / "a", sizes))
    texts = page.eval_on_selector_all("#search-1-objectives .xtick text", "all => all.map(each => each.textContent)")
    assert len(set(texts)) == len(texts) >= 3


def test_negative_bars_are_explained(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.sensitivity(tmp_path / "a"))
    assert "A negative bar: with this layer alone in float" in page.inner_text("#layers-0 figcaption")


def test_the_theme_can_be_chosen(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.sensitivity(tmp_path / "a"))
    read = "getComputedStyle(document.body).backgroundColor + document.querySelector('.plot text').style.fill"
    light = page.evaluate(read)
    page.select_option("#theme", "dark")
    dark = page.evaluate(read)
    assert light != dark
    page.select_option("#theme", "auto")
    assert page.evaluate(read) == light


def test_filters_leave_what_they_say(open_page: Open, tmp_path: Path) -> None:
    page = open_page(*folders.every_kind(tmp_path)[:2])
    assert {row[1] for row in cells(page, "accuracy-1-summary")} == {"float32", "w4a8"}
    page.uncheck("input[data-filter=schemes][value=float32]")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('8 of 16')")
    assert {row[1] for row in cells(page, "accuracy-1-summary")} == {"w4a8"}
    page.uncheck("input[data-filter=splits][value=deep]")
    page.fill("input[type=search]", "TEST/1")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('2 of 16')")
    assert {row[3] for row in cells(page, "accuracy-1-distribution")} == {"convnets/test/1"}
    page.fill("label:has-text('accuracy at least') input", "99")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('0 of 16')")
    assert marks(page) == {}
    assert page.locator("#accuracy-1-cost .empty").is_visible()
    page.fill("label:has-text('accuracy at least') input", "")
    page.fill("input[type=search]", "")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('6 of 16')")
    assert marks(page)["accuracy-1-cost"] > 0
    page.fill("label:has-text('multiply-adds at most') input", "0.0505")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('2 of 16')")


def test_the_front_is_what_nothing_beats(open_page: Open, tmp_path: Path) -> None:
    counts = [(31 * i) % 101 + 60 for i in range(40)]
    page = open_page(folders.evaluation(tmp_path / "a", {("test", "float32"): counts, ("test", "w4a8"): counts[::-1]}))
    page.select_option("#accuracy-1-cost select", "weight_bytes")
    page.wait_for_timeout(100)
    rows = [(float(row[4]), float(row[5]), row[6] == "1") for row in cells(page, "accuracy-1-cost")]
    for accuracy, cost, on_front in rows:
        beaten = any(a >= accuracy and c <= cost and (a, c) != (accuracy, cost) for a, c, _ in rows)
        assert on_front is not beaten


def test_paired_differences_have_their_intervals(open_page: Open, tmp_path: Path) -> None:
    stats = pytest.importorskip("scipy.stats", reason="the oracle of intervals is scipy's")
    rng = np.random.default_rng(3)
    first, second = rng.integers(100, 150, 9).tolist(), rng.integers(100, 160, 7).tolist()
    page = open_page(
        folders.evaluation(tmp_path / "a", {("test", "float32"): first}),
        folders.evaluation(tmp_path / "b", {("test", "float32"): second}, {"checkpoint": "other"}),
    )
    (row,) = cells(page, "accuracy-1-paired")
    differences = (np.array(second) - np.array(first[:7])) / 2
    interval = stats.t.interval(0.95, 6, loc=differences.mean(), scale=stats.sem(differences))
    assert row[:5] == ["b", "a", "test", "float32", "7"]
    assert [float(value) for value in row[5:]] == pytest.approx([differences.mean(), *interval], rel=1e-3)


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 10, 30, 499])
def test_quantiles_of_t(open_page: Open, tmp_path: Path, degrees: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="the oracle of quantiles is scipy's")
    differences = [(-1) ** i * (i % 7) + 1 for i in range(degrees + 1)]
    page = open_page(
        folders.evaluation(tmp_path / "a", {("test", "float32"): [100] * len(differences)}),
        folders.evaluation(tmp_path / "b", {("test", "float32"): [100 + each for each in differences]}, {"seed": 1}),
    )
    (row,) = cells(page, "accuracy-1-paired")
    half = stats.t.ppf(0.975, degrees) * stats.sem([each / 2 for each in differences])
    assert (float(row[7]) - float(row[6])) / 2 == pytest.approx(half, rel=2e-3)


def test_a_click_shows_the_architecture(open_page: Open, tmp_path: Path) -> None:
    page = open_page(*folders.every_kind(tmp_path))
    click_first_point(page, "accuracy-1-cost")
    page.wait_for_selector("dialog[open] .drawing svg .node")
    name = page.inner_text("#details-title")
    assert name.startswith("convnets/")
    assert "multiply-adds" in page.inner_text("dialog")
    page.click("dialog button:has-text('Close')")
    assert not page.locator("dialog[open]").count()


def test_the_keyboard_suffices(open_page: Open, tmp_path: Path) -> None:
    page = open_page(*folders.every_kind(tmp_path))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#accuracy-1-architectures button:has-text('convnets/test/0')")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .drawing svg")
    assert page.inner_text("#details-title") == "convnets/test/0"
    assert page.locator("dialog .plot .point").count() > 0  # errors of its layers, which another result has
    page.keyboard.press("Escape")
    assert not page.locator("dialog[open]").count()


def test_screen_readers_get_names_and_numbers(open_page: Open, tmp_path: Path) -> None:
    page = open_page(*folders.every_kind(tmp_path))
    labels = page.eval_on_selector_all(
        ".plot", "plots => plots.map(plot => [plot.getAttribute('role'), plot.ariaLabel])"
    )
    assert all(role == "img" and len(label) > 40 for role, label in labels)
    captions = page.eval_on_selector_all("figure:has(.plot) figcaption", "all => all.map(each => each.textContent)")
    assert all(re.search(r"\d", caption) for caption in captions)  # of how many
    unnamed = (
        """all => all.filter(each => !each.labels?.length && !each.ariaLabel && !each.textContent.trim()).length"""
    )
    assert page.eval_on_selector_all("input, select, button", unnamed) == 0
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize(
    ("figure", "columns"), [("accuracy-1-distribution", 7), ("accuracy-1-summary", 9), ("curve-loss", 4)]
)
def test_the_table_behind_a_figure_is_saved(open_page: Open, tmp_path: Path, figure: str, columns: int) -> None:
    page = open_page(*folders.every_kind(tmp_path))
    with page.expect_download() as waiting:
        page.click(f"#{figure} button:has-text('CSV')")
    waiting.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    assert waiting.value.suggested_filename == f"{figure}.csv"
    assert len(head) == columns
    assert {len(row) for row in rows} == {columns}
    assert len(rows) == len(cells(page, figure)) > 5


def test_names_are_text_and_nothing_else(open_page: Open, tmp_path: Path) -> None:
    evil = "<script>window.done = 1</script><img src=x onerror='window.done = 2'>, \"quoted\""
    page = open_page(folders.sensitivity(tmp_path / "a", model=evil), folders.finetune(tmp_path / "b", model=evil))
    page.click("#accuracy-1-architectures button")
    page.wait_for_selector("dialog[open]")
    assert page.inner_text("#details-title") == evil
    page.keyboard.press("Escape")
    with page.expect_download() as waiting:
        page.click("#accuracy-1-distribution button:has-text('CSV')")
    waiting.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1][3] == evil
    assert page.evaluate("window.done") is None
    assert page.locator("main img, dialog img").count() == 0


def test_what_is_not_comparable_is_shown_apart(open_page: Open, tmp_path: Path) -> None:
    correct = {("test", "float32"): [150, 140], ("test", "w8a8"): [149, 139]}
    page = open_page(
        folders.evaluation(tmp_path / "a", correct),
        folders.evaluation(tmp_path / "b", correct, {"protocol": "paper"}),
        folders.evaluation(tmp_path / "c", correct, {"data": "other", "data_hash": "e" * 64}),
    )
    assert "other protocols (deploy; paper)" in page.inner_text("#accuracy-2 .note")
    assert "other data (digits, other)" in page.inner_text("#accuracy-3 .note")
    assert not page.locator("#accuracy-1-paired, #accuracy-2-paired").count()


def test_other_steps_are_compared(open_page: Open, tmp_path: Path) -> None:
    page = open_page(
        folders.evaluation(tmp_path / "a", {("test", "w4a8"): [150, 140]}),
        folders.evaluation(tmp_path / "b", {("test", "w4a8"): [152, 141]}, {"steps": ["squant"]}),
    )
    assert [row[:5] for row in cells(page, "accuracy-1-paired")] == [["b", "a", "test", "w4a8", "2"]]
    assert "squant" in page.inner_text("#results")


def test_one_row_is_enough(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.evaluation(tmp_path / "a", {("test", "w4a8"): [150]}))
    assert marks(page)["accuracy-1-distribution"] > 0
    assert marks(page)["accuracy-1-cost"] > 0
    assert "1 architecture," in page.inner_text("#accuracy-1-distribution figcaption")


def test_a_network_that_is_always_wrong(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.evaluation(tmp_path / "a", {("test", "float32"): [0, 0], ("test", "w4a8"): [0, 0]}))
    assert all(number > 0 for number in marks(page).values())


def test_fifty_thousand_rows_are_drawn(open_page: Open, tmp_path: Path) -> None:
    numbers = range(12_500)
    correct = {
        ("train", scheme): [(7919 * i + 31 * n) % 201 for i in numbers]
        for n, scheme in enumerate(("float32", "w8a8", "w4a8", "w4a4"))
    }
    page = open_page(folders.evaluation(tmp_path / "a", correct))
    found = marks(page)
    assert 4000 < found["accuracy-1-distribution"] < 6000
    assert "50,000 points are drawn" in page.inner_text("#accuracy-1-distribution figcaption")
    row = cells(page, "accuracy-1-summary")[0]
    assert row[3] == "12500"
    accuracies = np.array(correct["train", "float32"]) / 2
    assert float(row[4]) == pytest.approx(accuracies.mean(), abs=0.005)
    page.fill("input[type=search]", "train/12499")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('4 of 50,000')")


def test_a_ranking_shows_what_became_of_each_candidate(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.ranking(tmp_path / "a"))
    rows = cells(page, "ranking-0-budget")
    assert [row[1] for row in rows].count("taken by --max-macs") == 3
    assert "--max-macs 115,000 took 3" in page.inner_text("#ranking-0-budget figcaption")
    assert "1 candidate failed" in page.inner_text("#ranking-0-budget figcaption")
    assert len(cells(page, "ranking-0-signal")) == 9  # those that the limit took have no value
    assert [row[:2] for row in cells(page, "ranking-0-failed")] == [["nets.py:Wrong", "my <own> mistake"]]
    assert "Be careful." in page.inner_text("#ranking-0-worth figcaption")
    worth = cells(page, "ranking-0-worth")
    assert worth == [["accuracy", "0.08", "-0.2", "0.3", "", "", "", "yes"], ["params", "0.38", *[""] * 5, "no"]]
    for size in ("bytes", "peak_memory", "parameters"):
        page.select_option("#ranking-0-signal select", size)
        page.select_option("#ranking-0-budget select", size)
        page.wait_for_timeout(50)
        assert marks(page)["ranking-0-budget"] >= 12
        assert marks(page)["ranking-0-signal"] >= 9
    page.fill("input[type=search]", "test/11")
    page.wait_for_function(
        "document.querySelector('#ranking-0-budget figcaption').textContent.startsWith('1 candidate')"
    )
    assert page.locator("#ranking-0-signal .empty").is_visible()


def test_a_candidate_that_is_not_among_the_best_is_drawn(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.ranking(tmp_path / "a"))
    page.evaluate("document.getElementById('ranking-0-budget').scrollIntoView()")
    click_first_point(page, "ranking-0-signal")
    page.wait_for_selector("dialog[open] .drawing svg .node")
    assert page.inner_text("#details-title").startswith("convnets/test/")
    assert "In rankings" in page.inner_text("dialog")


def test_rankings_of_the_same_candidates_are_compared(open_page: Open, tmp_path: Path) -> None:
    stats = pytest.importorskip("scipy.stats", reason="the oracle of rank correlations is scipy's")
    first, second = folders.ranking(tmp_path / "a"), folders.ranking(tmp_path / "b", by="loss")
    lines = [json.loads(line) for line in (second / "candidates.jsonl").read_text().splitlines()]
    for i, line in enumerate(lines):
        line["value"] = None if line["value"] is None else float((5 * i) % 4)  # with ties
    (second / "candidates.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = open_page(first, second)
    keys = [
        {each["model"]: 1000 * each["round"] + each["value"] for each in rows if each["round"]}
        for rows in ([json.loads(line) for line in (first / "candidates.jsonl").read_text().splitlines()], lines)
    ]
    tau = stats.kendalltau([keys[0][name] for name in keys[0]], [keys[1][name] for name in keys[0]]).statistic
    assert f"is {tau:.2f} over 9 candidates that both measured" in page.inner_text("#orders-figure figcaption")
    rows = cells(page, "orders-figure")
    assert sorted(int(row[4]) for row in rows) == list(range(1, 10))
    best = max(keys[0], key=lambda name: keys[0][name])
    assert [row[2] for row in rows if row[4] == "1"] == [best]
    page.select_option("#orders-figure select", "1")
    page.wait_for_function("document.querySelector('#orders-figure figcaption').textContent.startsWith('a: accuracy')")


def test_candidates_and_fronts_are_reached_by_keyboard(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.ranking(tmp_path / "a"), folders.search(tmp_path / "b"))
    assert len(cells(page, "ranking-0-budget")) == 12
    for button, name in (
        ("#ranking-0-budget button:has-text('convnets/test/11')", "convnets/test/11"),  # the limit took it
        ("#search-1-front button >> nth=1", "-made-up.json"),
    ):
        page.focus(button)
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        assert page.inner_text("#details-title").endswith(name)
        page.keyboard.press("Escape")
    assert not page.locator("#ranking-0-failed tbody button").count()  # nothing is known of what failed


def test_a_click_on_the_front_of_a_search(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.search(tmp_path / "a", [(90, 2000), (80, 1000)]))
    click_first_point(page, "search-1-objectives")
    page.wait_for_selector("dialog[open]")
    assert page.inner_text("#details-title").endswith("-made-up.json")
    assert "accuracy 90.00, macs 2,000" in page.inner_text("dialog")
    assert "ghnq sensitivity a/front/00-made-up.json --checkpoint digits" in page.inner_text("dialog")


def _union(points: list[tuple[float, ...]]) -> float:
    """The volume of the union of boxes from 0 to each point, cell by cell of the grid that their coordinates make."""
    edges = [sorted({0.0, *(point[axis] for point in points)}) for axis in range(len(points[0]))]
    total = 0.0
    for upper in itertools.product(*(range(1, len(axis)) for axis in edges)):
        corner = [axis[i] for axis, i in zip(edges, upper, strict=True)]
        if any(all(p >= c for p, c in zip(point, corner, strict=True)) for point in points):
            total += math.prod(axis[i] - axis[i - 1] for axis, i in zip(edges, upper, strict=True))
    return total


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_hypervolumes_are_those_of_a_union_of_boxes(open_page: Open, tmp_path: Path, objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    first, second = (
        [(float(a), int(m), int(b)) for a, m, b in zip(*rng.integers(10, 99, (3, 12)), strict=True)] for _ in range(2)
    )
    runs = [[row[:objectives] for row in rows] for rows in (first, second)]
    page = open_page(folders.search(tmp_path / "a", runs[0]), folders.search(tmp_path / "b", runs[1], sampler="tpe"))
    gains = [np.column_stack([np.array(run)[:, :1], -np.log10(np.array(run)[:, 1:])]) for run in runs]
    low, high = np.concatenate(gains).min(0), np.concatenate(gains).max(0)
    expected = [
        _union([tuple(point) for point in (run[: count + 1] - low) / (high - low)])
        for run in gains
        for count in range(len(run))
    ]
    rows = cells(page, "search-1-hypervolume")
    assert [row[:2] for row in rows] == [[name, str(i)] for name in "ab" for i in range(1, 13)]
    assert [float(row[2]) for row in rows] == pytest.approx(expected, abs=1e-5)


def test_searches_that_are_not_comparable_are_shown_apart(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.search(tmp_path / "a"), folders.search(tmp_path / "b", scheme="w4a4"))
    assert "other schemes (w4a8; w4a4)" in page.inner_text("#search-2 .note")


def test_a_search_of_one_architecture(open_page: Open, tmp_path: Path) -> None:
    page = open_page(folders.search(tmp_path / "a", [(50.0, 1000, 100)]))
    assert all(number > 0 for number in marks(page).values())


def test_many_candidates_and_trials_are_drawn(open_page: Open, tmp_path: Path) -> None:
    ranked = folders.ranking(tmp_path / "a")
    lines = (ranked / "candidates.jsonl").read_text().splitlines()
    more = [json.loads(lines[-1]) | {"model": f"net-{i}", "multiply_adds": 200_000 + i} for i in range(30_000)]
    (ranked / "candidates.jsonl").write_text("\n".join([*lines, *map(json.dumps, more)]) + "\n")
    trials = [(20 + i % 70 + i / 1e4, 1000 + (7919 * i) % 90_001, 500 + (31 * i) % 901) for i in range(3000)]
    page = open_page(ranked, folders.search(tmp_path / "b", trials))
    assert "10,012 of 30,012 candidates are not on this page" in page.inner_text("#results")
    assert "5,000 of 20,000 points are drawn" in page.inner_text("#ranking-0-budget figcaption")
    assert marks(page)["ranking-0-budget"] >= 5000
    assert marks(page)["search-1-objectives"] >= 3000
