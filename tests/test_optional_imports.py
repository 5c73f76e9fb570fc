"""Libraries that are missing, and libraries that are there and broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from ghnq.commands.spaces import describe
from ghnq.data import load
from ghnq.errors import MissingExtraError
from ghnq.optional_imports import import_optional


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `onnxruntime` that stands in front of the real one; the file is what it runs when imported."""
    (tmp_path / "onnxruntime").mkdir()
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "onnxruntime" / "__init__.py"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libcublas.so.12: cannot open shared object file')", "libcublas.so.12: cannot open"),
        ("import onnxruntime.capi._gone", "No module named 'onnxruntime.capi"),
        ("import a_library_that_is_not_here", "No module named 'a_library_that_is_not_here'"),
        ("from sys import not_there", "cannot import name 'not_there'"),
        ("raise OSError('bad magic')", "bad magic"),
        ("raise AttributeError", "AttributeError"),
    ],
)
def test_a_broken_library_is_named_with_its_reason(broken: Path, code: str, reason: str) -> None:
    broken.write_text(code)
    says = rf"onnxruntime is installed but cannot be imported: {reason}.*pip install 'ghnq\[export\]'"
    with pytest.raises(MissingExtraError, match=says):
        import_optional("onnxruntime")


def test_a_missing_library_is_not_reported_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="needs onnxruntime, which is not installed"):
        import_optional("onnxruntime")


def test_what_needs_datasets_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of images and the digits do not."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setattr("ghnq.data.hub._ask", lambda name, hint: pytest.fail("the hub was asked"))
    folder = tmp_path / "tables"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"tables' holds parquet files, and .*pip install 'ghnq\[data\]'"):
        load(folder)
    with pytest.raises(MissingExtraError, match=r"no directory 'someone/images', and .*pip install 'ghnq\[data\]'"):
        load("someone/images")
    for split, count in (("train", 6), ("test", 2)):
        for index in range(count):
            file = tmp_path / "images" / split / f"class{index % 2}" / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 20 * index + (5 if split == "test" else 0)).save(file)
    assert len(load(tmp_path / "images").train) == 6
    assert load("digits").num_classes == 10


def test_the_figure_of_a_space_names_its_extra_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.subplots", None)
    monkeypatch.setattr("ghnq.commands.spaces.measure", lambda *_, **__: pytest.fail("it was measured first"))
    with pytest.raises(MissingExtraError, match=r"needs plotly.*pip install 'ghnq\[report\]'"):
        describe("convnets", out=tmp_path / "a.html", as_json=False)


def test_a_missing_networkx_names_the_extra_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingExtraError, match=r"needs networkx.*pip install 'ghnq\[graph\]'"):
        import_optional("networkx")
