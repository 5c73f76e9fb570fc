"""Checkpoints: exact round trip, and every way in which one can be wrong."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from ghnq.errors import CheckpointError
from ghnq.hypernet.checkpoint import CONFIG, WEIGHTS, checkpoint_hash
from ghnq.hypernet.config import GHNConfig, Task
from ghnq.hypernet.model import GHN


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    task = Task(data="digits", image_shape=(1, 8, 8), mean=(0.25,), std=(0.5,))
    GHN(GHNConfig(hidden=8, max_shape=(8, 8, 3, 3)), task=task).save_pretrained(tmp_path / "ghn")
    return tmp_path / "ghn"


def test_a_checkpoint_comes_back_exactly(saved: Path, tmp_path: Path) -> None:
    ghn = GHN.from_pretrained(saved)
    ghn.save_pretrained(tmp_path / "again")
    again = GHN.from_pretrained(tmp_path / "again")
    assert (again.config, again.task) == (ghn.config, ghn.task)
    assert all(torch.equal(a, b) for a, b in zip(ghn.state_dict().values(), again.state_dict().values(), strict=True))
    assert checkpoint_hash(saved) == checkpoint_hash(tmp_path / "again")
    assert sorted(p.name for p in saved.iterdir()) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize("size", [0, 5, 100, 5000])
def test_a_truncated_checkpoint_is_named(saved: Path, size: int) -> None:
    path = saved / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="truncated"):
        GHN.from_pretrained(saved)


def test_pickles_are_refused(saved: Path, tmp_path: Path) -> None:
    evil = tmp_path / "ghn.pt"
    evil.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="Pickled files are not read"):
        GHN.from_pretrained(evil)
    (saved / WEIGHTS).write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        GHN.from_pretrained(saved)


def test_missing_files_are_named(saved: Path) -> None:
    (saved / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=WEIGHTS):
        GHN.from_pretrained(saved)
    (saved / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=CONFIG):
        GHN.from_pretrained(saved)
    with pytest.raises(CheckpointError, match="there is no checkpoint 'no such'"):
        GHN.from_pretrained("no such")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"ghn": {"hidden": 9}}, "multiple of 8"),
        ({"ghn": {"hiden": 8}}, "hiden"),
        ({"ghn": {"hidden": 16, "max_shape": [8, 8, 3, 3]}}, "config.json says"),
        ({"ghn": {"hidden": 8, "max_shape": [8, 8, 3, 3], "encoder": "mlp"}}, "does not fit"),
    ],
)
def test_a_config_that_does_not_fit_is_reported(saved: Path, change: dict[str, object], message: str) -> None:
    raw = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(raw | change))
    with pytest.raises(CheckpointError, match=message):
        GHN.from_pretrained(saved)


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_config_that_is_not_json_is_reported(saved: Path, text: str) -> None:
    (saved / CONFIG).write_text(text)
    with pytest.raises(CheckpointError, match="JSON"):
        GHN.from_pretrained(saved)
