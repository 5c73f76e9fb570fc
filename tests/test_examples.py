"""The programs of `examples/` run as their first lines say, and stay short. The notebook runs in `.ci/run` (nbmake)."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

import ghnq
from ghnq.search.evidence import evidence

SCRIPTS = ("own_network_to_int8.py", "qat_loop.py", "rank_candidates.py", "transfer_to_own_folder.py")


def run(repo_root: Path, folder: Path, script: str, *arguments: str) -> str:
    """Returns what a program prints; it must end well, without a warning but that of images that are held out."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:'images'", str(repo_root / "examples" / script), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_program_is_here_and_short(repo_root: Path) -> None:
    programs = sorted((repo_root / "examples").glob("*.py"))
    assert [program.name for program in programs] == sorted(SCRIPTS)
    assert all(len(program.read_text().splitlines()) < 60 for program in programs)


@pytest.mark.slow
def test_own_network_to_int8(repo_root: Path, tmp_path: Path) -> None:
    printed = run(repo_root, tmp_path, "own_network_to_int8.py", "--out", "own.onnx")
    assert float(re.findall(r"float32 +([\d.]+) %", printed)[0]) > 50
    assert float(re.findall(r"simulation on ([\d.]+)%", printed)[0]) > 99
    assert (tmp_path / "own.onnx").stat().st_size < 20_000


@pytest.mark.slow
def test_qat_loop(repo_root: Path, tmp_path: Path) -> None:
    printed = run(repo_root, tmp_path, "qat_loop.py", "--epochs", "4")
    before, after = map(float, re.findall(r"([\d.]+) % at w4a4", printed))
    assert before > 80
    assert after > before


@pytest.mark.slow
def test_rank_candidates(repo_root: Path, tmp_path: Path) -> None:
    printed = run(repo_root, tmp_path, "rank_candidates.py", "--max-macs", "200000")
    assert "6 of 18 candidates have at most 200,000 multiply-adds" in printed
    best = re.findall(r"CANDIDATES\[\d+x\d\] +([\d,]+) macs, +([\d.]+) %", printed)
    sizes = [int(text.replace(",", "")) for text, _ in best]
    assert len(sizes) == 5
    assert max(sizes) <= 200_000
    terms = evidence().fits["fitted"].terms
    assert terms.keys() == {"macs", "accuracy"}
    values = [
        terms["macs"] * math.log10(size) + terms["accuracy"] * float(accuracy)
        for size, (_, accuracy) in zip(sizes, best, strict=True)
    ]
    assert all(first > second - 0.01 for first, second in pairwise(values))  # accuracies are printed to 0.1
    assert "Kendall's tau of 'fitted'" in printed


@pytest.mark.slow
def test_transfer_to_own_folder(repo_root: Path, tmp_path: Path) -> None:
    digits = ghnq.load_dataset("digits").train
    for index in range(400):
        folder = tmp_path / "images" / ("odd" if digits.labels[index] % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.pixels[index, 0].numpy()).save(folder / f"{index}.png")
    arguments = ("images", "--checkpoint", "digits", "--image-size", "16")
    printed = run(repo_root, tmp_path, "transfer_to_own_folder.py", *arguments)
    assert re.match(r"320 training and 80 test images of 2 classes", printed), printed
    assert float(re.findall(r"w8a8 +([\d.]+) %", printed)[0]) > 80
    assert (tmp_path / "transferred.safetensors").is_file()
