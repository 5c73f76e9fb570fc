"""Mistakes of people with a folder of images and a network of their own: each is named, with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from ghnq.models import load_model

from .conftest import Cli

NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3, width=8, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

class Renamed(Net):
    def __init__(self):
        super().__init__()
        self.stem = self.conv
        del self.conv

    def forward(self, x):
        return self.head(self.norm(self.stem(x)).relu().mean((2, 3)))

class Overflows(Net):
    "In train mode, whatever its weights are."

    def forward(self, x):
        return super().forward(x) * (1e30 * 1e30 if self.training else 1.0)

def wide():
    return Net(width=12)

def grey():
    return Net(channels=1)

def ten():
    return Net(10)
"""
CLASSES = ("Straße mit Bäumen", "日本 語", "[v2] (кот)")
SHORT = ["--epochs", 0.1, "--lr", 0.01]


@pytest.fixture
def shop(models: Path) -> Path:
    """A folder with `own.py` and `photos`, three classes of 24 + 4 images whose names are in three scripts."""
    folder = models.parent
    (folder / "own.py").write_text(NETS)
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 4)):
        for number, name in enumerate(CLASSES):
            (folder / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                pixels[..., number] += 100
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{index}.png")
    return folder


def repaint(folder: Path, mode: str) -> None:
    """Writes all images again in another mode of Pillow."""
    for file in folder.rglob("*.png"):
        image = Image.open(file)
        if mode == "I;16":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(file)
        else:
            image.convert(mode).save(file)


def test_names_in_other_scripts_and_few_images(ghnq: Cli, shop: Path) -> None:
    call = ghnq("finetune", "own.py:Net", "--data", "photos", "--scheme", "w4a8", *SHORT, "--out", "a run", "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert document["steps"] == 1
    assert document["epochs"] == 1
    assert any("has 65 images to train with: a batch has these, not 128" in text for text in document["warnings"])
    assert "--weights 'a run'" in document["export_command"]


@pytest.mark.parametrize(("mode", "model"), [("L", "grey"), ("P", "Net"), ("RGBA", "Net"), ("I;16", "grey")])
def test_images_of_every_mode(ghnq: Cli, shop: Path, mode: str, model: str) -> None:
    repaint(shop / "photos", mode)
    call = ghnq("score", f"own.py:{model}", "--checkpoint", "cifar10", "--data", "photos", "--schemes", "float32",
                "--json")  # fmt: skip
    assert call.code == 0, call.err
    assert json.loads(call.out)["images"] == 7


def test_a_class_without_test_images_and_one_class_alone(ghnq: Cli, shop: Path) -> None:
    shutil.rmtree(shop / "photos" / "test" / CLASSES[1])
    words = [
        "score",
        "own.py:Net",
        "--checkpoint",
        "cifar10",
        "--data",
        "photos",
        "--schemes",
        "float32",
        "--on",
        "test",
    ]
    call = ghnq(*words, "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["images"] == 8
    assert any(f"1 class has no test images: '{CLASSES[1]}'" in text for text in json.loads(call.out)["warnings"])
    for name in CLASSES[1:]:
        shutil.rmtree(shop / "photos" / "train" / name)
    shutil.rmtree(shop / "photos" / "test" / CLASSES[2])
    call = ghnq(*words)
    assert call.code == 2
    assert "needs at least two" in call.err


def test_several_sizes_and_a_damaged_file(ghnq: Cli, shop: Path) -> None:
    train = shop / "photos" / "train" / CLASSES[0]
    Image.new("RGB", (20, 31)).save(train / "3.png")
    (train / "5.png").write_bytes(b"\x89PNG\r\n")
    words = ["finetune", "own.py:Net", "--data", "photos", *SHORT]
    call = ghnq(*words)
    assert call.code == 2
    assert "--image-size" in call.err
    assert "3.png" in call.err
    call = ghnq(*words, "--image-size", 16)
    assert call.code == 2
    assert "5.png" in call.err
    assert "--skip-unreadable" in call.err
    assert not (shop / "runs").exists()
    call = ghnq(*words, "--image-size", 16, "--skip-unreadable", "--json")
    assert call.code == 0, call.err
    assert "--image-size 16 --skip-unreadable" in json.loads(call.out)["export_command"]
    assert any("1 of 84 images" in text for text in json.loads(call.out)["warnings"])


def test_weights_of_others_are_told_from_ones_own(ghnq: Cli, shop: Path) -> None:
    assert ghnq("finetune", "own.py:Net", "--data", "photos", *SHORT, "--out", "mine").code == 0
    save_file({name: t.clone() for name, t in load_model("own.py:wide").state_dict().items()}, "wide.safetensors")
    for words, says in [
        (["own.py:Renamed", "--weights", "mine"], "has no 'stem.weight' (did you mean"),
        (["own.py:wide", "--weights", "mine"], "'conv.weight' has shape (8, 3, 3, 3) in 'mine', and (12, 3, 3, 3)"),
        (["own.py:ten", "--weights", "mine"], "or for another number of classes"),
        (["own.py:Net", "--weights", "mien"], "did you mean 'mine'"),
        (["own.py:Net", "--weights", "wide.safetensor"], "did you mean 'wide.safetensors'"),
        (["own.py:Net", "--weights", "wide.safetensors"], "does not say which images it is for"),
        (["own.py:Net", "--weights", "mine", "--data", "digits"], "for images of 3x16x16 ('photos')"),
        (["own.py:ten", "--checkpoint", "cifar10", "--data", "photos"], "make the model with 3 outputs"),
        (["own.py:grey", "--checkpoint", "cifar10", "--data", "photos"], "takes 1 channels, got 3"),
        (["own.py:Net", "--weights", "mine", "--schemes", "w1a8"], "the nearest is 2"),
        (["own.py:Net", "--weights", "mine", "--schemes", "w4a8+con=w8a8"], "did you mean 'conv'"),
    ]:
        call = ghnq("score", *words)
        assert call.code == 2, words
        assert says in " ".join(call.err.split()), (words, call.err)
        assert "Traceback" not in call.err
    for words, says in [
        (["own.py:wide", "--data", "photos"], "MODEL (was own.py:Net, now own.py:wide)"),
        (["own.py:Net", "--data", "photos", "--seed", 3], "--seed (was 0, now 3)"),
        (["own.py:Net", "--data", "photos", "--scheme", "w8a8"], "--scheme (was float32, now w8a8)"),
    ]:
        call = ghnq("finetune", *words, *SHORT, "--out", "mine", "--resume")
        assert call.code == 2, words
        assert says in " ".join(call.err.split()), (words, call.err)


def test_a_loss_that_is_never_finite(ghnq: Cli, shop: Path) -> None:
    call = ghnq("finetune", "own.py:Overflows", "--data", "photos", "--epochs", 1)
    assert call.code == 2
    assert "not finite before the first update" in call.err
    assert "half the learning rate" not in call.err
