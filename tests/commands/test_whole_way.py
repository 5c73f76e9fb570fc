"""From a folder of images and a module of one's own to a verified integer file: one command for each step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.conftest import Cli

CLASSES = ("blue lamp", "grün", "leaf", "red", "stripes")
SIZE = 64
MODULE = """
from torch import nn

def block(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(block(3, 8), block(8, 16), block(16, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
"""


def picture(label: int, generator: np.random.Generator) -> Image.Image:
    """Returns an image of a class: noise, with a colour, or with stripes."""
    pixels = generator.integers(0, 120, (SIZE, SIZE, 3))
    if label < 4:
        pixels[..., label % 3] += 100 if label < 3 else 0
        pixels[: SIZE // 2] += 60 if label == 3 else 0
    else:
        pixels[:, ::8] = 255
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `photos/` and `mine.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                file = tmp_path / "photos" / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture(label, generator).save(file)
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


@pytest.mark.slow
def test_from_a_folder_of_images_to_a_verified_file(ghnq: Cli, folder: Path) -> None:
    model = "mine.py:Mine"
    tuned = ghnq(
        "finetune", model, "--data", "photos", "--scheme", "w4a8", "--max-minutes", 0.15,
        "--batch-size", 32, "--device", "cpu", "--json",
    )  # fmt: skip
    assert tuned.code == 0, tuned.err
    document = json.loads(tuned.out)
    assert document["test_images"] == 40
    assert document["checkpoint"] == "cifar10"
    assert any("5 classes" in each and "head solved" in each for each in document["warnings"])
    # Guessing gives 20; how many steps there are in a time depends on the machine.
    assert document["before"]["w4a8"] > 30
    assert document["after"]["w4a8"] > 50
    assert document["export_command"] == (
        "ghnq export mine.py:Mine --weights runs/mine-Mine --scheme w4a8 --data photos --out model.onnx"
    )
    scored = ghnq("score", model, "--weights", "runs/mine-Mine", "--on", "test", "--schemes", "float32,w4a8", "--json")
    assert scored.code == 0, scored.err
    found = {row["scheme"]: row["accuracy"] for row in json.loads(scored.out)["rows"]}
    assert found == pytest.approx(document["after"])  # one truth
    exported = ghnq(*document["export_command"].split()[1:], "--json")
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["calibration_images"] == 120  # all there are
    assert json.loads(exported.out)["weights"] == "mine-Mine"
    verified = ghnq("verify", "model.onnx", "--data", "photos", "--json")
    assert verified.code == 0, verified.err
    parity = json.loads(verified.out)
    assert parity["agreement"] == 100
    assert parity["accuracy_runtime"] == parity["accuracy_simulation"]
    # What was reported after training is what the file does, but for an image or two: it also rounds the average.
    assert parity["accuracy_runtime"] == pytest.approx(document["after"]["w4a8"], abs=100 * 2 / 40)
    profiled = ghnq("profile", "model.onnx", "--repeats", 3, "--json")
    assert profiled.code == 0, profiled.err
