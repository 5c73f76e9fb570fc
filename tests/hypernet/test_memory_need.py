"""A hypernetwork that does not fit into memory is refused before it is allocated, by its configuration alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ghnq.errors import CheckpointError, TrainingError
from ghnq.hypernet import GHN, GHNConfig, memory_need
from ghnq.hypernet.memory_need import decoder_parameters, memory_shortage
from ghnq.memory import available_memory
from ghnq.training import train
from ghnq.training.recipe import validate_recipe
from tests.training.conftest import TINY


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"channel_rank": 16, "place": True, "condition": True},
        {"channel_rank": 2000},
        {"max_shape": (128, 96, 5, 5)},
        {"max_shape": (64, 64, 11, 11), "depthwise": "shared"},
        {"decoder": "lowrank", "max_shape": (1024, 512, 7, 7)},
        {"decoder": "lowrank", "max_shape": (512, 1024, 5, 5), "depthwise": "shared", "rank": 64},
    ],
    ids=str,
)
def test_the_estimate_is_a_close_lower_bound(keys: dict[str, Any]) -> None:
    config = GHNConfig(**keys)
    actual = sum(parameter.numel() for parameter in GHN(config).parameters())
    assert 0.9 * actual < decoder_parameters(config) <= actual


def test_the_memory_of_this_machine_is_known() -> None:
    found = available_memory()
    assert found is None or 10e6 < found < 1e14


def test_copies_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    config = GHNConfig()
    needed = 4 * decoder_parameters(config)
    monkeypatch.setattr(memory_need, "available_memory", lambda: 10 * needed)
    assert memory_shortage(config) is None
    assert memory_shortage(config, copies=10) is None
    assert memory_shortage(config, copies=11) is not None
    monkeypatch.setattr(memory_need, "available_memory", lambda: None)  # a system that does not say
    assert memory_shortage(GHNConfig(max_shape=(10**9, 10**9, 7, 7))) is None


@pytest.mark.parametrize("keys", [{"max_shape": [1_000_000, 1_000_000, 7, 7]}, {"channel_rank": 10**9}], ids=str)
def test_training_is_refused_before_it_starts(keys: dict[str, Any], tmp_path: Path) -> None:
    recipe = validate_recipe({**TINY, "hypernet": {"hidden": 8, **keys}}, "large")
    ((key, value),) = keys.items()
    said = (
        rf"{key} {re.escape(str(value))}.*needs at least [\d,.]+ GB of memory, and [\d,.]+ GB are available: 5 tensors"
    )
    with pytest.raises(TrainingError, match=said):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    GHN(GHNConfig(hidden=8, max_shape=(8, 8, 3, 3))).save_pretrained(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    document["ghn"]["max_shape"] = [10**7, 10**7, 3, 3]
    (tmp_path / "config.json").write_text(json.dumps(document))
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(CheckpointError, match=r"needs at least [\d,.]+ GB of memory.*take another checkpoint"):
        GHN.from_pretrained(tmp_path)
