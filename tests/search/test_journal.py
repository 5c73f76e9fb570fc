"""The journal of a study survives a crash or a full disk in the middle of a line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghnq.errors import WriteError
from ghnq.search.journal import drop_cut_line
from ghnq.search.loop import Search, evaluated
from ghnq.search.study import JOURNAL, open_storage

from .test_search_loop import problem, shared


@given(st.lists(st.binary(max_size=70_000).filter(lambda line: b"\n" not in line), max_size=4), st.binary(max_size=9))
def test_only_a_part_of_a_line_is_dropped(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], rest: bytes
) -> None:
    file = tmp_path_factory.mktemp("journal") / "file"
    whole = b"".join(line + b"\n" for line in lines)
    rest = rest.replace(b"\n", b"")
    file.write_bytes(whole + rest)
    drop_cut_line(file)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("length", [65_535, 65_536, 65_537, 131_072, 200_000])
def test_lines_longer_than_a_block(tmp_path: Path, length: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first\n" + b"x" * length)
    drop_cut_line(file)
    assert file.read_bytes() == b"first\n"
    file.write_bytes(b"x" * length)
    drop_cut_line(file)
    assert file.read_bytes() == b""


@pytest.mark.parametrize("left", [1, 0.5])
def test_a_study_whose_last_trial_was_cut_off_goes_on(tmp_path: Path, left: float) -> None:
    Search(shared(tmp_path), problem()).run(4)
    file = tmp_path / JOURNAL
    lines = file.read_bytes().splitlines(keepends=True)
    last = lines[-1]
    file.write_bytes(b"".join(lines[:-1]) + last[: max(1, int(left * len(last)) - 1)])
    again = shared(tmp_path, resume=True)
    before = evaluated(again)
    assert before == 3
    Search(again, problem()).run(6)
    assert evaluated(shared(tmp_path, resume=True)) == 6  # and it can be read once more


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = shared(tmp_path)
    Search(study, problem()).run(2)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\); .*--resume goes on"):
            Search(study, problem()).run(5)
    assert os.fsync is fsync
    assert evaluated(shared(tmp_path, resume=True)) >= 2


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"study\.journal' cannot be written"):
        open_storage(None, tmp_path / "missing")
