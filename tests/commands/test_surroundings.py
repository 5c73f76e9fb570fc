"""Where commands run: without a home, beside files with the names of libraries, beside another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def ghnq(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Runs `python -m ghnq`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | env
    return subprocess.run(
        [sys.executable, "-m", "ghnq", *words], cwd=cwd, capture_output=True, env=environment, timeout=120
    )


@pytest.mark.parametrize("library", ["datasets", "typer"])
def test_a_folder_that_shadows_a_library_is_named(tmp_path: Path, library: str) -> None:
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text("")
    if library == "datasets":
        code = "import datasets; from ghnq.shadowing import shadowed_library; print(shadowed_library())"
        ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
        said = ended.stdout.decode()
    else:
        ended = ghnq("--version", cwd=tmp_path)
        said = ended.stderr.decode()
        assert ended.returncode == 2
        assert "Traceback" not in said
    assert f"'{tmp_path / library}' is imported in place of the library '{library}'" in said


def test_no_library_is_shadowed_elsewhere(tmp_path: Path) -> None:
    code = "import datasets, typer, torch, yaml, PIL; from ghnq.shadowing import shadowed_library as f; print(f())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout.strip() == "None", ended.stderr


def test_a_library_that_is_installed_into_a_folder_is_no_shadow(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("")
    (tmp_path / "datasets-5.0.dist-info").mkdir()
    code = "import datasets; from ghnq.shadowing import shadowed_library as f; print(datasets.__file__, f())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout.split() == [str(tmp_path / "datasets" / "__init__.py"), "None"], ended.stderr


def test_a_name_that_no_file_may_have(tmp_path: Path) -> None:
    ended = ghnq("draw", "m.py:net", "-o", "a" * 256 + ".svg", cwd=tmp_path)
    assert ended.returncode == 2
    assert b"choose a shorter name" in ended.stderr
    assert b"Traceback" not in ended.stderr


def image_folder(folder: Path) -> None:
    pixels = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for name in ("katze ä", "犬"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                noise = pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / split / name / f"{number} x.png")


LOAD = "import ghnq.data, sys; print(len(ghnq.data.load(sys.argv[1]).test))"


@pytest.mark.parametrize(
    "env", [{"HOME": "/dev/null"}, {"HOME": ""}, {"XDG_CACHE_HOME": "/proc/no"}, {"LC_ALL": "C", "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0"}]
)  # fmt: skip
def test_no_place_for_a_cache_is_no_error(tmp_path: Path, env: dict[str, str]) -> None:
    folder = tmp_path / "große klassen 数据"
    image_folder(folder)
    environment = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    if "LC_ALL" in env:
        environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)], cwd=tmp_path, capture_output=True, text=True, env=environment | env
    )
    assert (ended.returncode, ended.stdout) == (0, "8\n"), ended.stderr
    assert "Traceback" not in ended.stderr


def test_two_processes_on_one_cache(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    image_folder(folder)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True, env=environment)
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "8\n"), err
    cached = list((tmp_path / "cache" / "ghnq" / "images").iterdir())
    assert [file.suffix for file in cached] == [".safetensors"]
