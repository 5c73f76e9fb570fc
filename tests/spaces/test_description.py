"""Descriptions and their figures."""

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from ghnq.errors import SpaceError
from ghnq.spaces import convnets, resolve
from ghnq.spaces.convnets import SPACE
from ghnq.spaces.description import MEASURES, describe, summarize
from ghnq.spaces.description_figure import write_figure
from ghnq.spaces.description_tables import ops_table, table


@pytest.fixture(scope="module")
def description():
    return describe(SPACE, 40)


def test_describe_measures_the_first_members(description):
    assert [split.split for split in description.splits] == list(convnets.SPLITS)
    train = description.splits[0]
    costs = [convnets.cost(convnets.spec("train", index)) for index in range(40)]
    assert train.measures["parameters"] == tuple(cost.parameters for cost in costs)
    assert train.quantile("depth", 0.5) == np.median([cost.depth for cost in costs])
    assert sum(train.ops.values()) == pytest.approx(np.mean([cost.nodes for cost in costs]))
    assert sum(train.families.values()) == train.samples == 40
    assert {split.samples for split in description.splits[1:]} == {20}


def test_to_dict_is_json(description):
    document = json.loads(json.dumps(description.to_dict(), allow_nan=False))
    train = document["splits"][0]
    assert train["size"] == 250_000
    assert train["parameters"]["p5"] <= train["parameters"]["p50"] <= train["parameters"]["p95"]
    assert {"parameters", "multiply_adds", "depth", "ops", "families"} <= set(train)


def test_tables_show_every_split(description):
    console = Console(width=160, file=io.StringIO())
    console.print(table(description))
    console.print(ops_table(description))
    text = console.file.getvalue()
    for split in convnets.SPLITS:
        assert text.count(split) >= 2
    assert re.search(r"split.*members.*cells.*parameters", text)
    assert re.search(r"train +│ +250,000", text)
    assert "sep_conv" in text


def test_figure_is_self_contained(description, tmp_path):
    path = tmp_path / "new folder" / "space.html"
    write_figure(description, path)
    page = path.read_text()
    assert page.startswith("<!doctype html>")
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    for label in MEASURES.values():
        assert label in page


def test_progress_counts_to_the_end():
    calls = []
    describe(SPACE, 1, progress=lambda *call: calls.append(call))
    total = 1 + 20 * (len(SPACE.splits) - 1)
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_no_samples():
    with pytest.raises(SpaceError, match="at least 1"):
        describe(SPACE, 0)


def test_summary_holds_the_spec():
    space, spec = resolve("convnets/test/17")
    shown = json.loads(json.dumps(summarize(space, spec)))
    assert convnets.Spec.from_json(json.dumps(shown["spec"])) == spec
    assert shown["structure_hash"] == spec.structure_hash
    assert shown["nodes"] == sum(shown["ops"].values())
