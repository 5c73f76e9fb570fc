"""A published file, imported, predicts, is measured, and is where a training run starts."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from ghnq.hypernet import GHN
from tests.hypernet.peers import read_ghn3
from tests.training.conftest import TINY

from .conftest import Cli


@pytest.fixture
def published(tmp_path: Path) -> Path:
    _, config, state, _ = read_ghn3()
    path = tmp_path / "ghn3.pt"
    torch.save({"config": config, "state_dict": state}, path)
    return path


def test_an_imported_checkpoint_predicts_and_is_measured(ghnq: Cli, models: Path, published: Path) -> None:
    out = models.parent / "imported"
    call = ghnq("import", published, "--out", out, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert list(document) == ["file", "out", "encoder", "num_classes", "parameters", "sha256", "config"]
    assert (document["encoder"], document["num_classes"]) == ("graphormer", 10)
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    assert GHN.from_pretrained(out).task is None

    call = ghnq("predict", "models.py:Net", "--checkpoint", out, "--out", "net.safetensors")
    assert call.code == 0, call.err
    call = ghnq("evaluate", out, "--limit", "1", "--images", "20", "--schemes", "float32")
    assert call.code == 2
    assert "--data" in call.err
    words = ("--data", "digits", "--limit", "1", "--images", "20", "--schemes", "float32,w8a8")
    call = ghnq("evaluate", out, *words, "--json")
    assert call.code == 0, call.err


def test_a_checkpoint_is_never_overwritten(ghnq: Cli, models: Path, published: Path) -> None:
    out = models.parent / "imported"
    assert ghnq("import", published, "--out", out).code == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    call = ghnq("import", published, "--out", out)
    assert call.code == 2
    assert "already holds a checkpoint" in call.err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_nothing_is_written_for_a_wrong_file(ghnq: Cli, models: Path) -> None:
    out = models.parent / "imported"
    assert ghnq("import", "none.pt", "--out", out).code == 2
    assert ghnq("import", "models.py", "--out", out).code == 2
    assert not out.exists()


def test_training_starts_from_an_imported_checkpoint(ghnq: Cli, models: Path, published: Path) -> None:
    folder = models.parent
    assert ghnq("import", published, "--out", folder / "imported").code == 0
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"steps": 1, "ema": 0.0}))
    call = ghnq("train", "tiny.yaml", "--set", "init=imported", "--set", "optimizer.lr=1e-9")
    assert call.code == 0, call.err
    assert "hypernet.hidden is 16, not 8" in call.err
    start, end = GHN.from_pretrained(folder / "imported"), GHN.from_pretrained(folder / "runs" / "tiny" / "last")
    assert end.config == start.config
    assert end.task is not None
    for key, tensor in start.state_dict().items():
        torch.testing.assert_close(end.state_dict()[key], tensor, rtol=0, atol=1e-6)
