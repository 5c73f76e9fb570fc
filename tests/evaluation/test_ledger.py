"""Rows on disk: what comes back after a crash, and what is refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from ghnq.errors import GhnqError, WriteError
from ghnq.evaluation.ledger import FILE, Ledger
from tests.evaluation.conftest import row

PRINT = {"checkpoint_hash": "abc", "seed": 0, "versions": {"torch": "2"}}
HERE = {"processor": "one", "vnni": False}


def keep(folder: Path, count: int = 3) -> bytes:
    with Ledger(folder, PRINT, HERE) as ledger:
        for index in range(count):
            ledger.add([row(index=index), row(index=index, scheme="w8a8")])
    return (folder / FILE).read_bytes()


def test_rows_come_back(tmp_path: Path) -> None:
    keep(tmp_path)
    with Ledger(tmp_path, PRINT, HERE) as ledger:
        assert all(("test", index, scheme) in ledger for index in range(3) for scheme in ("float32", "w8a8"))
        assert ("test", 3, "float32") not in ledger
        assert ledger["test", 1, "w8a8"] == row(index=1, scheme="w8a8")


def test_a_full_disk_is_told_and_costs_only_the_rows_it_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path)

    def half(descriptor: int, data: bytes) -> int:
        os.pwrite(descriptor, data[:20], (tmp_path / FILE).stat().st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger(tmp_path, PRINT, HERE) as ledger, monkeypatch.context() as full:
        full.setattr(os, "write", half)
        with pytest.raises(WriteError, match=r"rows\.jsonl' cannot be written \(No space left on device\).*again"):
            ledger.add([row(index=3)])
        assert ("test", 3, "float32") not in ledger
    with Ledger(tmp_path, PRINT, HERE) as ledger:
        assert ("test", 2, "w8a8") in ledger
        assert ("test", 3, "float32") not in ledger


def test_a_crash_at_any_byte_loses_the_cut_row_and_no_other(tmp_path: Path) -> None:
    whole = keep(tmp_path)
    for end in {*range(0, len(whole), 13), *(whole.find(b"\n", start) + step for start in (0, 300) for step in (0, 1))}:
        (tmp_path / FILE).write_bytes(whole[:end])
        kept = max(0, whole[:end].count(b"\n") - 2)  # not rows: what they depend on, and the machine
        with Ledger(tmp_path, PRINT, HERE) as ledger:
            assert len(ledger) == kept
            ledger.add([row(index=99)])
        with Ledger(tmp_path, PRINT, HERE) as ledger:
            assert len(ledger) == kept + 1
            assert ("test", 99, "float32") in ledger


def test_rows_know_their_machine(tmp_path: Path) -> None:
    keep(tmp_path, 2)
    elsewhere = {**HERE, "vnni": True}
    with Ledger(tmp_path, PRINT, elsewhere) as ledger:
        assert ledger.machines([("test", 0, "float32")]) == [HERE]
        ledger.add([row(index=2)])
        ledger.add([row(index=3)])
    for here in (HERE, elsewhere):  # whoever reads
        with Ledger(tmp_path, PRINT, here) as ledger:
            assert ledger.machines([("test", index, "float32") for index in range(4)]) == [HERE, elsewhere]
            assert ledger.machines([("test", index, "float32") for index in (2, 3)]) == [elsewhere]
    assert (tmp_path / FILE).read_text().count('"machine"') == 2


def test_rows_of_a_file_without_machines_are_from_one_unnamed(tmp_path: Path) -> None:
    whole = keep(tmp_path, 1).decode()
    (tmp_path / FILE).write_text("".join(line for line in whole.splitlines(True) if '"machine"' not in line))
    with Ledger(tmp_path, PRINT, HERE) as ledger:
        ledger.add([row(index=1)])
        assert ledger.machines([("test", 1, "float32"), ("test", 0, "float32")]) == [HERE, None]


def test_rows_are_on_disk_when_add_returns(tmp_path: Path) -> None:
    with Ledger(tmp_path, PRINT, HERE) as ledger:
        ledger.add([row(index=5)])
        assert json.loads((tmp_path / FILE).read_text().splitlines()[-1]) == row(index=5)


def test_another_evaluation_is_refused_and_left_alone(tmp_path: Path) -> None:
    whole = keep(tmp_path)
    other = {**PRINT, "seed": 1, "versions": {"torch": "3"}}
    with pytest.raises(
        GhnqError, match=r"holds another evaluation: seed was 0, now 1; versions was .*Give another folder"
    ):
        Ledger(tmp_path, other, HERE).__enter__()
    assert (tmp_path / FILE).read_bytes() == whole
    keep(tmp_path, 0)  # and the lock was given back


@pytest.mark.parametrize("damage", ["{nonsense", "[1]", '{"split": "test"}', '{"machine": 1}', "\x00\x00"])
def test_a_damaged_line_is_named(tmp_path: Path, damage: str) -> None:
    keep(tmp_path)
    lines = (tmp_path / FILE).read_text().splitlines()
    lines[2] = damage  # of the two before, one is what rows depend on, one the machine
    (tmp_path / FILE).write_text("\n".join(lines) + "\n")
    with pytest.raises(GhnqError, match=r"line 3: is .*; give another folder, or remove this one"):
        Ledger(tmp_path, PRINT, HERE).__enter__()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path, PRINT, HERE),
        pytest.raises(GhnqError, match="in use by another evaluation"),
    ):
        Ledger(tmp_path, PRINT, HERE).__enter__()


def test_without_a_folder_rows_live_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger(None, PRINT, HERE) as ledger:
        ledger.add([row()])
        assert ledger["test", 0, "float32"] == row()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [{"correct": "5"}, {"images": 0}, {"correct": 11}, {"parameters": 2**63}, {"index": -1}, {"scheme": None},
     {"correct": 5.5}, {"images": True}],
)  # fmt: skip
def test_rows_with_impossible_values_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    keep(tmp_path)
    with (tmp_path / FILE).open("a") as file:
        file.write(json.dumps({**row(index=7), **change}) + "\n")
    with pytest.raises(GhnqError, match="is not a row of results"), Ledger(tmp_path, PRINT, HERE):
        pass


def test_a_line_nested_too_deeply_is_damaged(tmp_path: Path) -> None:
    keep(tmp_path)
    with (tmp_path / FILE).open("a") as file:
        file.write("[" * 100_000 + "\n")
    with pytest.raises(GhnqError, match="is damaged"), Ledger(tmp_path, PRINT, HERE):
        pass
