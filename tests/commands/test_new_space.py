"""A space that is not part of the package, through the command line: trained on, evaluated, described, shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ghnq import spaces
from tests.report.pages import content_of, rows_of
from tests.spaces.tiny_space import SPACE

from .conftest import Cli

RECIPE = {
    "name": "tiny space",
    "data": "digits",
    "space": "tiny",
    "hypernet": {"hidden": 8, "max_shape": [16, 16, 3, 3]},
    "steps": 2,
    "meta_batch": 2,
    "batch_size": 8,
    "validation": {"every": 2, "architectures": 3, "images": 40, "calibration": 40},
    "workers": 1,
}


@pytest.fixture(autouse=True)
def tiny_space() -> Iterator[None]:
    spaces.register(SPACE)
    yield
    spaces.unregister("tiny")


def recipe_file(folder: Path, **keys: object) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**RECIPE, **keys}))
    return file


def test_a_new_space_is_trained_on_evaluated_described_and_shown(ghnq: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    call = ghnq("train", recipe_file(tmp_path), "--out", run)
    assert call.code == 0, call.err
    assert json.loads((run / "best" / "config.json").read_text())["task"]["space"] == "tiny"

    call = ghnq(
        "evaluate", run / "best", "--schemes", "float32,w8a8", "--images", 20, "--out", tmp_path / "eval", "--json"
    )
    assert call.code == 0, call.err
    assert [(row["scheme"], row["architectures"]) for row in json.loads(call.out)["rows"]] == [
        ("float32", 3), ("w8a8", 3),
    ]  # fmt: skip
    page = content_of(tmp_path / "eval" / "report.html")
    assert rows_of(page["documents"][0])[-1]["architecture"] == "tiny/test/2"
    assert "tiny/test/2" in page["drawings"]

    call = ghnq("spaces", "describe", "tiny", "--out", tmp_path / "tiny.html", "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert document["space"] == "tiny"
    assert [(split["split"], split["samples"]) for split in document["splits"]] == [
        ("train", 3), ("val", 3), ("test", 3),
    ]  # fmt: skip
    assert "The space tiny" in (tmp_path / "tiny.html").read_text()
    table = ghnq("spaces", "describe", "tiny", "--out", tmp_path / "tiny.html")
    assert "tiny, 32x32 images" in table.out

    call = ghnq("spaces", "show", "tiny/test/1", "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert document["spec"] == {"layers": 2, "channels": 16}
    assert document["structure_hash"] == SPACE.spec("test", 1).structure_hash
    assert "2 convolutions 3x3 to 16" in ghnq("spaces", "show", "tiny/test/1").out

    call = ghnq("predict", "tiny/test/1", "--checkpoint", run / "best", "--out", tmp_path / "net.safetensors")
    assert call.code == 0, call.err


def test_single_members_of_a_new_space_are_evaluated(ghnq: Cli, tmp_path: Path) -> None:
    call = ghnq("train", recipe_file(tmp_path), "--out", tmp_path / "run")
    assert call.code == 0, call.err
    call = ghnq("evaluate", tmp_path / "run" / "best", "--splits", "test/3")
    assert call.code == 2
    assert "no tiny/test/3" in call.err
    call = ghnq("evaluate", tmp_path / "run" / "best", "--splits", "deep")
    assert call.code == 2
    assert "train, val, test" in call.err


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"space": "tinny"}, "did you mean 'tiny'"),
        ({"validation": {"architectures": 4}}, "split 'val' of the space 'tiny' has 3"),
        ({"curriculum": {"steps": 1, "family": "cells"}}, "the space 'tiny' has plain"),
        ({"curriculum": {"steps": 1, "stem_stride": 2}}, "admits no architecture"),
    ],
)
def test_a_recipe_that_does_not_fit_the_space_is_refused(
    ghnq: Cli, tmp_path: Path, keys: dict[str, object], message: str
) -> None:
    call = ghnq("train", recipe_file(tmp_path, **keys), "--out", tmp_path / "run")
    assert call.code == 2
    assert message in " ".join(call.err.split())
