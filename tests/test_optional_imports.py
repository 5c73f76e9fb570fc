"""Libraries that are missing, and libraries that are there and broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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


def test_a_missing_networkx_names_the_extra_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingExtraError, match=r"needs networkx.*pip install 'ghnq\[graph\]'"):
        import_optional("networkx")
