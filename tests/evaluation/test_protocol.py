"""Whole evaluations: resumed after a kill, spread over workers, extended, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ghnq.data import ImageDataset
from ghnq.errors import DataError, GhnqError, SchemeError, SpaceError
from ghnq.evaluation import Results, architectures, described, evaluate
from ghnq.evaluation.ledger import FILE
from ghnq.evaluation.provenance import machine, weights_hash
from ghnq.hypernet import GHN, Task
from ghnq.hypernet.checkpoint import checkpoint_hash
from tests.small_networks import small_digits, small_ghn

# What the killed process and this one do alike.
SPLITS, SCHEMES, LIMIT = ("test", "bnfree"), ("float32", "w4a8"), 10


def measure(ghn: GHN, digits: ImageDataset, out: Path | None = None, workers: int = 1, **changes: object) -> Results:
    options = {"splits": SPLITS, "schemes": SCHEMES, "limit": LIMIT, "out": out, "workers": workers, **changes}
    return evaluate(ghn, digits, checkpoint="small", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain() -> Results:
    """The table as one undisturbed process makes it, without files."""
    return measure(small_ghn(), small_digits())


def test_one_row_for_each_architecture_and_scheme(plain: Results) -> None:
    keys = list(zip(*(plain.table[name].to_pylist() for name in ("split", "index", "scheme")), strict=True))
    assert keys == [(split, index, scheme) for split in SPLITS for index in range(LIMIT) for scheme in SCHEMES]
    assert set(plain.table["images"].to_pylist()) == {40}
    assert len(set(plain.table["structure_hash"].to_pylist())) == 2 * LIMIT
    accuracy = plain.table["accuracy"].to_pylist()
    assert accuracy == [100 * correct / 40 for correct in plain.table["correct"].to_pylist()]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked, which is safe on Linux only")
@pytest.mark.slow
def test_workers_do_not_change_a_number(plain: Results, ghn: GHN, digits: ImageDataset) -> None:
    before = torch.get_num_threads()
    for workers in (2, 3):
        assert measure(ghn, digits, workers=workers).table.equals(plain.table)
    torch.set_num_threads(2)
    try:
        assert measure(ghn, digits).table.equals(plain.table)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGINT)])
def test_killed_in_the_middle_then_resumed_gives_the_same_table(
    plain: Results,
    ghn: GHN,
    digits: ImageDataset,
    tmp_path: Path,
    workers: int,
    number: signal.Signals,
    repo_root: Path,
) -> None:
    out = tmp_path / "run"
    code = (
        "from pathlib import Path\n"
        "from tests.small_networks import small_digits, small_ghn\n"
        "from tests.evaluation.test_protocol import measure\n"
        f"measure(small_ghn(), small_digits(), Path({str(out)!r}), {workers})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=repo_root, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (out / FILE).exists() or (out / FILE).read_bytes().count(b"\n") < 1 + 2 * len(SCHEMES):
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        process.communicate()
    assert process.returncode == -number
    assert not (out / "results.parquet").exists()
    calls: list[tuple[int, int]] = []
    resumed = measure(ghn, digits, out, progress=lambda done, total: calls.append((done, total)))
    assert resumed.table.equals(plain.table)
    assert Results.load(out).table.equals(plain.table)
    found = calls[0][0]
    assert 2 <= found < 2 * LIMIT, "the kill came too late to test anything"
    assert calls == [(done, 2 * LIMIT) for done in range(found, 2 * LIMIT + 1)]


def test_finished_rows_are_not_measured_again(
    plain: Results, ghn: GHN, digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(ghn, digits, tmp_path)
    monkeypatch.setattr("ghnq.evaluation.evaluator.Evaluator.measure", lambda *_: pytest.fail("measured again"))
    assert measure(ghn, digits, tmp_path).table.equals(plain.table)
    narrow = measure(ghn, digits, tmp_path, splits=("bnfree",), schemes=("w4a8",), limit=2)
    assert len(narrow.table) == 2
    assert narrow.table["drop_from_float32"].null_count == 2


def test_a_run_can_be_widened(plain: Results, ghn: GHN, digits: ImageDataset, tmp_path: Path) -> None:
    measure(ghn, digits, tmp_path, splits=("bnfree",), schemes=("w4a8",), limit=2)
    calls: list[tuple[int, int]] = []
    wide = measure(ghn, digits, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert wide.table.equals(plain.table)
    assert calls[0] == (0, 2 * LIMIT)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("weights", "checkpoint_hash"),
        ("images", "test_images"),
        ("seed", "seed"),
        ("protocol", "protocol"),
        ("data", "data_hash"),
    ],
)
def test_another_evaluation_in_the_same_folder_is_refused(
    ghn: GHN, digits: ImageDataset, tmp_path: Path, change: str, named: str
) -> None:
    small = {"splits": ("test",), "schemes": ("float32",), "limit": 1}
    measure(ghn, digits, tmp_path, **small)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(GhnqError, match=f"holds another evaluation: .*{named} was"):
        measure(
            small_ghn(seed=1) if change == "weights" else ghn,
            small_digits(train=61) if change == "data" else digits,
            tmp_path,
            **small,
            **{"images": {"images": 30}, "seed": {"seed": 1}, "protocol": {"protocol": "paper"}}.get(change, {}),
        )
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_summary_says_what_the_figures_hang_on(ghn: GHN, digits: ImageDataset, tmp_path: Path) -> None:
    measure(ghn, digits, tmp_path, splits=("test",), limit=2, images=20, seed=4)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["checkpoint"] == "small"
    assert summary["checkpoint_hash"] == weights_hash(ghn)
    assert (summary["data"], summary["data_hash"]) == ("few digits", digits.content_hash)
    assert (summary["test_images"], summary["calibration_images"], summary["seed"]) == (20, 60, 4)
    assert summary["versions"]["torch"] == torch.__version__
    assert "ghnq" in summary["versions"]
    assert summary["machines"] == [machine()]
    assert described(summary["machines"]).startswith(f"{os.cpu_count()} cores (")
    assert summary["torch_threads"] == 1
    assert [row["images"] for row in summary["rows"]] == [20, 20]


def test_hash_is_that_of_the_checkpoint_file(ghn: GHN, tmp_path: Path) -> None:
    ghn.save_pretrained(tmp_path)
    assert weights_hash(ghn) == checkpoint_hash(tmp_path) == weights_hash(GHN.from_pretrained(tmp_path))


def test_schemes_are_named_once_in_their_own_writing(ghn: GHN, digits: ImageDataset) -> None:
    made = measure(ghn, digits, splits=("test",), schemes=("w8a8", "float32", "w8a8"), limit=1)
    assert made.table["scheme"].to_pylist() == ["w8a8", "float32"]


def test_ghn_and_data_are_left_as_they_were(ghn: GHN, digits: ImageDataset) -> None:
    ghn.train()
    before = {name: tensor.clone() for name, tensor in ghn.state_dict().items()}
    pixels = digits.test.pixels.clone()
    measure(ghn, digits, splits=("test",), limit=1)
    assert ghn.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in ghn.state_dict().items())
    assert all(parameter.grad is None for parameter in ghn.parameters())
    assert torch.equal(digits.test.pixels, pixels)


def test_members_are_named_one_by_one_or_by_split(ghn: GHN, digits: ImageDataset) -> None:
    assert architectures(["deep/3", "test"], 2) == [("deep", 3), ("test", 0), ("test", 1)]
    assert architectures(["test/1", "test/17", "test/1"]) == [("test", 1), ("test", 17)]
    assert architectures(["test/1", "test"], 2) == [("test", 1), ("test", 0)]
    assert architectures(["train/249999"]) == [("train", 249_999)]
    made = measure(ghn, digits, splits=("test/1", "bnfree"), schemes=("w4a8",), limit=1)
    whole = measure(ghn, digits, splits=("test",), schemes=("w4a8",), limit=2)
    assert made.table.slice(0, 1).equals(whole.table.slice(1, 1))
    assert made.table["split"].to_pylist() == ["test", "bnfree"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"splits": ("tset",)}, SpaceError, r"no split 'tset' \(did you mean 'test'\?\)"),
        ({"splits": ()}, SpaceError, "No split"),
        ({"splits": ("train",), "limit": None}, SpaceError, "250,000 architectures; give a limit"),
        ({"limit": 0}, SpaceError, "limit of 0"),
        ({"splits": ("test/500",)}, SpaceError, "0 to 499"),
        ({"splits": ("test/-1",)}, SpaceError, "integer from 0 on, not '-1'"),
        ({"splits": ("test/1/2",)}, SpaceError, "'convnets/test/1/2' is not the name"),
        ({"splits": ("deap/1",)}, SpaceError, r"no split 'deap' \(did you mean 'deep'\?\)"),
        ({"schemes": ("w4b8",)}, SchemeError, "w4b8"),
        ({"schemes": ()}, GhnqError, "No scheme"),
        ({"protocol": "deplyo"}, SchemeError, "deploy"),
        ({"images": 41}, DataError, "choose between 1 and 40"),
        ({"images": 0}, DataError, "choose between 1 and 40"),
        ({"workers": 0}, GhnqError, "workers is 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    ghn: GHN, digits: ImageDataset, tmp_path: Path, changes: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        measure(ghn, digits, **{"out": tmp_path / "out", "workers": 1, **changes})  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "results.parquet").exists()


def task(shape: tuple[int, int, int], dataset: ImageDataset) -> Task:
    return Task(
        data=dataset.name, image_shape=shape, mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist())
    )


def test_images_that_do_not_fit_the_hypernetwork(ghn: GHN, digits: ImageDataset) -> None:
    five = [replace(part, labels=part.labels % 5) for part in (digits.train, digits.test)]
    with pytest.raises(DataError, match="for 10 classes, but 'five' has 5"):
        measure(ghn, ImageDataset.build("five", *five, tuple("abcde"), flip=False))
    ghn.task = task((3, 32, 32), digits)
    with pytest.raises(DataError, match=r"trained on images of 3x32x32 .* are 1x8x8"):
        measure(ghn, digits)
