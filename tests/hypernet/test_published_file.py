"""Files of published hypernetworks: what is read, and every way in which a file can be wrong."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ghnq.errors import CheckpointError
from ghnq.hypernet.published_file import read_published
from tests.hypernet.peers import read_ghn3

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def ghn3() -> tuple[dict[str, Any], State]:
    _, config, state, _ = read_ghn3()
    return config, state


def save(content: object, folder: Path) -> Path:
    path = folder / "published.pt"
    torch.save(content, path)
    return path


def test_files_with_and_without_configuration_are_read(ghn3: tuple[dict[str, Any], State], tmp_path: Path) -> None:
    config, state = ghn3
    graph, _, _, expected = read_ghn3()
    for content in (
        {"config": config, "state_dict": state, "epoch": 3, "optimizer": {"lr": 1}},
        {"state_dict": state},
        state,
    ):
        ghn = read_published(save(content, tmp_path))
        assert ghn.task is None
        assert not ghn.training
        with torch.no_grad():
            predicted = ghn.predict(graph)
        assert all((predicted[k] - t).abs().max() <= 1e-5 * t.abs().max() for k, t in expected.items())


def test_the_peers_file_is_read(shared_dir: Path) -> None:
    assert read_published(shared_dir / "peers" / "ghn2" / "ghn2_random.pt").config.encoder == "gatedgnn"


def test_files_that_hold_code_are_refused_by_name(ghn3: tuple[dict[str, Any], State], tmp_path: Path) -> None:
    config, state = ghn3
    path = save({"config": argparse.Namespace(**config), "state_dict": state}, tmp_path)
    with pytest.raises(CheckpointError, match="weights_only"):
        read_published(path)
    path.write_bytes(pickle.dumps(np.zeros(3)))
    with pytest.raises(CheckpointError, match=r"published\.pt"):
        read_published(path)


def test_damaged_files_are_named(ghn3: tuple[dict[str, Any], State], tmp_path: Path) -> None:
    path = save(ghn3[1], tmp_path)
    whole = path.read_bytes()
    for size in (0, 1, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="truncated, damaged, or not a file of torch"):
            read_published(path)
    for text in (b"hello", b"{}", b"\x80\x02", bytes(range(256))):
        path.write_bytes(text)
        with pytest.raises(CheckpointError, match="truncated, damaged, or not a file of torch"):
            read_published(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_published(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_published(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        (torch.zeros(2), "holds a Tensor"),
        ({}, "dictionary of nothing"),
        ({"model": {}, "epoch": 3}, r"'model' \(dict\), 'epoch' \(int\)"),
        ({"state_dict": {"a": 1}}, r"'state_dict' \(dict\)"),
        ({"state_dict": {1: torch.zeros(1)}}, r"'state_dict' \(dict\)"),
        ({"config": 3, "state_dict": {"a": torch.zeros(1)}}, r"'config' \(int\)"),
        ({"a.weight": torch.zeros(1)}, "a.weight"),
    ],
)
def test_another_layout_says_what_came_and_what_was_expected(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_published(save(content, tmp_path))
    assert "expected" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hid": 12}, "multiple of 8"),
        ({"hid": 24}, "has shape"),
        ({"hid": "large"}, "hidden"),
        ({"hid": 8 * 10**8}, "has shape|cannot be used"),
        ({"max_shape": 8}, "cannot be used"),
        ({"max_shape": (8, 8)}, "max_shape"),
        ({"heads": 3}, "multiple of heads"),
        ({"layers": 5}, "missing"),
        ({"decoder": "mlp"}, "decoder"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_configuration_that_does_not_fit_is_told(
    ghn3: tuple[dict[str, Any], State], change: dict[str, object], message: str, tmp_path: Path
) -> None:
    config, state = ghn3
    with pytest.raises(CheckpointError, match=message):
        read_published(save({"config": config | change, "state_dict": state}, tmp_path))
