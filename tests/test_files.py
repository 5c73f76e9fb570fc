"""Atomic writes: a file is complete or absent, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from ghnq.errors import GhnqError, WriteError
from ghnq.files import atomic_path, cache_root, sweep, write_text


def test_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "model.safetensors"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".safetensors"
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def write_half(target: Path, failure: BaseException | type[BaseException]) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("hal")
        raise failure


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_keeps_the_old_file(tmp_path: Path, interruption: type[BaseException]) -> None:
    target = tmp_path / "summary.json"
    target.write_text("old")

    with pytest.raises(interruption):
        write_half(target, interruption)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), "No such file"),  # the folder is gone
        (SafetensorError("IoError: no space"), "IoError: no space"),
    ],
)
def test_failed_write_is_a_write_error_with_the_file(tmp_path: Path, refusal: Exception, reason: str) -> None:
    target = tmp_path / "net.onnx"
    target.write_text("old")

    with pytest.raises(WriteError, match=f"net.onnx' cannot be written .*{reason}.*free space") as caught:
        write_half(target, refusal)
    assert isinstance(caught.value, GhnqError)
    assert caught.value.__cause__ is refusal
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_file_size_limit_in_a_subprocess(tmp_path: Path) -> None:
    code = "from ghnq.files import write_text; write_text('big.txt', 'x' * 10_000)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert "WriteError: 'big.txt' cannot be written (File too large)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nested_writers_of_one_target_do_not_interfere(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as outer:
        outer.write_text("outer")
        with atomic_path(target) as inner:
            assert inner != outer
            inner.write_text("inner")
        assert target.read_text() == "inner"
    assert target.read_text() == "outer"


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "mean ± s.e.\n")
    assert (tmp_path / "a.txt").read_bytes() == "mean ± s.e.\n".encode()


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_sweep_removes_only_temporary_files(tmp_path: Path) -> None:
    gone = [".state.0123abcd.tmp.safetensors", ".recipe.89abcdef.tmp.yaml", ".log.89abcdef.tmp", ".tmpG70Ci6"]
    kept = ["state.safetensors", ".tmp", ".tmpfile.txt", "notes.tmp", ".tmpshort", ".mine.tmp.yaml"]
    for name in (*gone, *kept):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.txt"
    for link in (tmp_path / "link.txt", tmp_path / "dangling.txt"):
        link.symlink_to(target)
        write_text(link, link.name)
        assert link.is_symlink()
        assert target.read_text() == link.name
        target.unlink(missing_ok=link.name == "link.txt")


@pytest.mark.parametrize("name", ["x" * 251 + ".txt", "ü" * 125 + ".yaml", "a." + "b" * 253, "日" * 84 + ".md"])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    assert len(name.encode()) >= 250
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "text"


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(WriteError, match="cannot be written"):
        write_text(tmp_path / "a", "text")


def test_a_link_that_leads_to_no_file_yet(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "net.onnx").symlink_to("real/net.onnx")
    write_text(tmp_path / "net.onnx", "text")
    assert (tmp_path / "net.onnx").is_symlink()
    assert (tmp_path / "real" / "net.onnx").read_text() == "text"


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WriteError, match="not a regular file"):
        write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["a" * 250 + ".onnx", "é" * 125 + ".onnx", "a." + "b" * 253, "数" * 83 + ".onnx"])
def test_names_of_255_bytes(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_longer_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"File name too long.*choose a shorter name"):
        write_text(tmp_path / ("a" * 256), "text")
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert cache_root() is None
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_root() == Path("/home/somebody/.cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_root() == Path("/caches")
