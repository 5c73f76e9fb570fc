"""Loading: directories of parquet files and of images, the cache, unknown names, and CIFAR-10 if present."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ghnq.data import ReadOptions, load
from ghnq.data.cache import cache_file
from ghnq.errors import DataError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(array: np.ndarray[Any, Any], mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, format="PNG")
    return buffer.getvalue()


def random_arrays(count: int, shape: tuple[int, ...] = (5, 6, 3)) -> list[np.ndarray[Any, Any]]:
    return [RNG.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]


def write_parquet(
    file: Path, images: list[bytes], labels: list[Any], image_column: str = "img", label_column: str = "label"
) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    column = pa.array([{"bytes": image, "path": None} for image in images], kind)
    table = pa.table({image_column: column, label_column: labels})
    if label_column != "fine_label":  # the other tables have no metadata of `datasets`
        classes = '{"names": ["ant", "bee"], "_type": "ClassLabel"}'
        values = '{"dtype": "string", "_type": "Value"}' if isinstance(labels[0], str) else classes
        features = f'"{image_column}": {{"_type": "Image"}}, "{label_column}": {values}'
        table = table.replace_schema_metadata({"huggingface": f'{{"info": {{"features": {{{features}}}}}}}'})
    pq.write_table(table, file)


def parquet_directory(folder: Path, train: list[bytes], test: list[bytes], **columns: str) -> Path:
    folder.mkdir(exist_ok=True)
    write_parquet(folder / "x-train.parquet", train, [index % 2 for index in range(len(train))], **columns)
    write_parquet(folder / "x-test.parquet", test, [index % 2 for index in range(len(test))], **columns)
    return folder


@pytest.mark.parametrize(
    ("image_column", "label_column"), [("img", "label"), ("image", "labels"), ("picture", "fine_label")]
)
def test_parquet_directory_round_trip(tmp_path: Path, image_column: str, label_column: str) -> None:
    arrays = random_arrays(7)
    encoded = [png(array) for array in arrays]
    folder = parquet_directory(
        tmp_path / "set", encoded[:4], encoded[4:], image_column=image_column, label_column=label_column
    )
    dataset = load(str(folder))
    assert torch.equal(dataset.train.pixels, torch.tensor(np.stack(arrays[:4])).permute(0, 3, 1, 2))
    assert torch.equal(dataset.test.pixels, torch.tensor(np.stack(arrays[4:])).permute(0, 3, 1, 2))
    assert dataset.train.labels.tolist() == [0, 1, 0, 1]
    assert dataset.test.labels.tolist() == [0, 1, 0]
    assert dataset.class_names == (("0", "1") if label_column == "fine_label" else ("ant", "bee"))
    assert dataset.flip is (label_column != "fine_label")
    assert dataset.name == "set"  # without the folders above it


def test_image_folder_with_validation_split(tmp_path: Path) -> None:
    arrays = random_arrays(4, (4, 4))
    for index, array in enumerate(arrays):
        split = "train" if index < 2 else "validation"
        file = tmp_path / split / ("crow" if index % 2 else "ape") / f"{index}.png"
        file.parent.mkdir(parents=True)
        Image.fromarray(array).save(file)
    dataset = load(tmp_path)
    assert dataset.class_names == ("ape", "crow")
    assert torch.equal(dataset.train.pixels, torch.tensor(np.stack(arrays[:2]))[:, None])
    assert torch.equal(dataset.test.pixels, torch.tensor(np.stack(arrays[2:]))[:, None])
    assert dataset.test.labels.tolist() == [0, 1]
    assert load(tmp_path, flip=False).flip is False


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    flat = np.full((4, 4, 3), (51, 204, 153), dtype=np.uint8)
    dataset = load(parquet_directory(tmp_path / "p", [png(flat, "P")] * 2, [png(flat + 1)] * 2))
    assert (dataset.train.pixels[0].permute(1, 2, 0) - torch.tensor(flat)).abs().max() == 0


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    good = [png(array) for array in random_arrays(3)]
    other_size = png(random_arrays(1, (6, 6, 3))[0])
    with pytest.raises(DataError, match=r"split test: image 1 is 6x6 with 3 channels, but the first image is 5x6"):
        load(parquet_directory(tmp_path / "size", good, [good[0], other_size]))
    with pytest.raises(DataError, match="must be equal"):
        load(parquet_directory(tmp_path / "splits", good, [other_size]))


@pytest.mark.parametrize("broken", [b"no image at all", b"", None, "truncated"])
def test_unreadable_image_is_named(tmp_path: Path, broken: Any) -> None:
    good = png(random_arrays(1, (40, 40, 3))[0])
    bad = good[: len(good) // 2] if broken == "truncated" else broken
    with pytest.raises(DataError, match=r"split train: image 1 (cannot be read|is empty)"):
        load(parquet_directory(tmp_path / "set", [good, bad], [good]))


def test_missing_columns_and_splits(tmp_path: Path) -> None:
    good = [png(array) for array in random_arrays(2)]
    others = [png(array) for array in random_arrays(2)]
    by_another_name = parquet_directory(tmp_path / "kind", good, others, label_column="kind")
    assert load(by_another_name).class_names == ("ant", "bee")
    folder = tmp_path / "label"
    folder.mkdir()
    for split in ("train", "test"):
        write_parquet(folder / f"{split}.parquet", good, ["ant", "bee"], label_column="lable")
    with pytest.raises(DataError, match=r"column of class labels.*did you mean 'label'.*lable \(Value\)"):
        load(folder)
    folder = parquet_directory(tmp_path / "one", good, good)
    (folder / "x-test.parquet").unlink()
    with pytest.raises(DataError, match=r"needs the splits 'train' and 'test' .*; it has \['train'\]"):
        load(folder)
    folder = tmp_path / "string"
    folder.mkdir()
    for split in ("train", "test"):
        write_parquet(folder / f"{split}.parquet", good, ["ant", "bee"])
    with pytest.raises(DataError, match="'label' must hold class numbers"):
        load(folder)
    folder = tmp_path / "plain"
    folder.mkdir()
    for split in ("train", "test"):
        pq.write_table(pa.table({"x": [1.0], "label": [0]}), folder / f"{split}.parquet")
    with pytest.raises(DataError, match=r"needs one column of images .* x \(Value\), label \(Value\)"):
        load(folder)


def test_withheld_labels_are_refused(tmp_path: Path) -> None:
    good = [png(array) for array in random_arrays(2)]
    folder = parquet_directory(tmp_path / "set", good, good)
    write_parquet(folder / "x-test.parquet", good, [-1, -1])
    with pytest.raises(DataError, match="withheld"):
        load(folder)


def test_directories_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be loaded.*must hold parquet files or image folders"):
        load(tmp_path)
    (tmp_path / "x-train.parquet").write_bytes(b"this is not parquet")
    (tmp_path / "x-test.parquet").write_bytes(b"this is not parquet")
    with pytest.raises(DataError, match=r"cannot be loaded.*must hold parquet files or image folders"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", r"'digit' is not a directory \(did you mean 'digits'\?\)"),
        ("./no/such/folder", "is not a directory.*Give 'digits'"),
        ("/no/such/folder", "is not a directory.*Give 'digits'"),
        ("", "is not a directory.*Give 'digits'"),
        (__file__, "is a file.*Give 'digits'"),
        (
            "nobody/nothing",
            "'nobody/nothing' cannot be loaded.*no such directory.*cannot be loaded from the hub",
        ),
    ],
)
def test_unknown_names_are_refused(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=message):
        load(name)


def test_cache_is_used_until_the_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = [png(array) for array in random_arrays(6)]
    folder = parquet_directory(tmp_path / "set", encoded[:2], encoded[2:4])
    first = load(folder)
    assert cache_file(folder, ReadOptions()).is_file()
    with monkeypatch.context() as patch:
        patch.setattr("ghnq.data.loading.read_directory", lambda *_, **__: pytest.fail("decoded again"))
        second = load(folder)
    assert second.content_hash == first.content_hash
    assert (second.flip, second.class_names, second.name) == (first.flip, first.class_names, first.name)
    assert torch.equal(second.mean, first.mean)
    parquet_directory(folder, encoded[4:], encoded[2:4])
    os.utime(folder / "x-train.parquet", ns=(0, 0))
    assert not torch.equal(load(folder).train.pixels, first.train.pixels)


def test_damaged_or_unwritable_cache_is_reported_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoded = [png(array) for array in random_arrays(4)]
    folder = parquet_directory(tmp_path / "set", encoded[:2], encoded[2:])
    first = load(folder)
    file = cache_file(folder, ReadOptions())
    file.write_bytes(file.read_bytes()[:50])
    with caplog.at_level(logging.WARNING):
        assert load(folder).content_hash == first.content_hash
    assert "they are decoded again" in caplog.text
    assert load(folder).content_hash == first.content_hash
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "x-train.parquet"))
    with caplog.at_level(logging.WARNING):
        assert load(folder).content_hash == first.content_hash
    assert "decodes them again" in caplog.text


def test_resizing_agrees_with_pillow() -> None:
    small, large = load("digits"), load("digits", image_size=16)
    assert large.input_shape == (1, 16, 16)
    assert large.padding == 2
    assert torch.equal(large.train.labels, small.train.labels)
    for index in range(20):
        by_pillow = Image.fromarray(small.train.pixels[index, 0].numpy()).resize((16, 16), Image.Resampling.BILINEAR)
        difference = large.train.pixels[index, 0].int() - torch.tensor(np.array(by_pillow)).int()
        assert difference.abs().max() <= 1
    assert load("digits", image_size=8).content_hash == small.content_hash
    with pytest.raises(DataError, match="Image size 3 is out of range"):
        load("digits", image_size=3)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data (CIFAR-10) beside the repository")
def test_shared_cifar10() -> None:
    dataset = load(str(SHARED))
    assert (len(dataset.train), len(dataset.test)) == (50000, 10000)
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    assert dataset.class_names[:3] == ("airplane", "automobile", "bird")
    assert dataset.flip
    # The published statistics of CIFAR-10.
    torch.testing.assert_close(dataset.mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=5e-3, rtol=0)
    torch.testing.assert_close(dataset.std, torch.tensor([0.2470, 0.2435, 0.2616]), atol=5e-3, rtol=0)
    row = pq.read_table(next(SHARED.glob("*test*.parquet"))).slice(4321, 1).to_pylist()[0]
    array = np.asarray(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB"))
    assert torch.equal(dataset.test.pixels[4321].permute(1, 2, 0), torch.tensor(array))
    assert dataset.test.labels[4321] == row["label"]
