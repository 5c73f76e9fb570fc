"""Folders as people have them: names that look like splits, links, hold-out, sizes, damaged files, repeated images."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ghnq.data import ImageDataset, ReadOptions, load, reading
from ghnq.errors import DataError, GhnqWarning
from tests.data.test_load import png

RNG = np.random.default_rng(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def write(file: Path, shape: tuple[int, ...] = (6, 6, 3)) -> np.ndarray[Any, Any]:
    file.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(file)
    return array


def image_folder(folder: Path, classes: tuple[str, ...] = ("ant", "bee"), train: int = 3, test: int = 2) -> Path:
    for split, count in (("train", train), ("test", test)):
        for name in classes:
            for index in range(count):
                write(folder / split / name / f"{index}.png")
    return folder


def load_with_notes(folder: Path, **options: Any) -> tuple[ImageDataset, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = load(folder, **options)
    return dataset, "\n".join(str(each.message) for each in caught if issubclass(each.category, GhnqWarning))


def test_class_names_that_are_words_of_splits(tmp_path: Path) -> None:
    classes = ("other", "test tube", "train station", "validation", "pre-test", "evaluation_kit", "dev", "eval", "val")
    dataset = load(image_folder(tmp_path / "set", classes, train=4, test=2))
    assert (len(dataset.train), len(dataset.test)) == (36, 18)
    assert dataset.class_names == tuple(sorted(classes))
    assert dataset.train.labels.bincount().tolist() == [4] * 9
    assert dataset.test.labels.bincount().tolist() == [2] * 9


@pytest.mark.parametrize("name", ["imagefolder", "parquet", "[v2]", "test", "train set", "a*b?", "写真 test"])
def test_names_of_the_directory_mean_nothing(tmp_path: Path, name: str) -> None:
    folder = image_folder(tmp_path / "plain")
    image_folder(tmp_path / "neighbour")
    expected = load(folder).content_hash
    folder.rename(tmp_path / name)
    assert load(tmp_path / name).content_hash == expected


@pytest.mark.parametrize("name", ["imagefolder", "[v2]", "test-train"])
def test_parquet_below_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for split, count in (("train", 4), ("test", 2)):
        write_table(folder / f"x-{split}.parquet", [index % 2 for index in range(count)])
    dataset = load(folder)
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (4, 2, 2)


def test_files_with_words_and_suffixes_of_any_case(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    write(folder / "train" / "ant" / "test_001.png")
    write(folder / "train" / "ant" / "2.Png")
    write(folder / "test" / "bee" / "train-1.JPEG")
    (folder / "train" / "ant" / ".hidden.png").write_bytes(b"")
    (folder / "train" / "ant" / "._1.png").write_bytes(b"")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "__MACOSX" / "train" / "ant").mkdir(parents=True)
    (folder / "__MACOSX" / "train" / "ant" / "1.png").write_bytes(b"")
    (folder / "train" / "ant" / "Thumbs.db").write_bytes(b"")
    dataset = load(folder)
    assert dataset.train.labels.bincount().tolist() == [5, 3]
    assert dataset.test.labels.bincount().tolist() == [2, 3]


def test_links_are_followed(tmp_path: Path) -> None:
    real = image_folder(tmp_path / "real")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "train").symlink_to(real / "train")
    (linked / "test").symlink_to(real / "test")
    (real / "train" / "ant" / "loop").symlink_to(real / "train")
    assert load(linked).content_hash == load(real).content_hash
    before = load(linked).content_hash
    write(real / "train" / "ant" / "new.png")  # the cache of the linked directory is out of date, too
    assert load(linked).content_hash != before


def test_repeated_images_are_counted(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    for index in range(2):
        (folder / "test" / "ant" / f"copy{index}.png").write_bytes((folder / "train/ant/0.png").read_bytes())
    for _ in range(2):  # from the files, and from the cache
        assert "2 of 6 test images are identical to training images" in load_with_notes(folder)[1]


def test_classes_without_images_are_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path, ("ant", "bee", "cat"))
    for file in (folder / "test" / "bee").iterdir():
        file.unlink()
    dataset, notes = load_with_notes(folder)
    assert "1 class has no test images: 'bee'" in notes
    assert dataset.class_names == ("ant", "bee", "cat")
    assert dataset.test.labels.tolist() == [0, 0, 2, 2]


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 class, 'ant'"):
        load(image_folder(tmp_path, ("ant",)))


@pytest.mark.parametrize("below", ["", "train"])
def test_holdout_is_stratified_and_fixed(tmp_path: Path, below: str) -> None:
    for name, count in (("ant", 10), ("bee", 5), ("train", 1)):
        for index in range(count):
            write(tmp_path / below / name / f"{index}.png")
    with pytest.raises(DataError, match=r"it has \['train'\].*--holdout 0.2"):
        load(tmp_path)
    dataset, notes = load_with_notes(tmp_path, holdout=0.2)
    assert dataset.class_names == ("ant", "bee", "train")
    assert dataset.test.labels.bincount(minlength=3).tolist() == [2, 1, 0]
    assert dataset.train.labels.bincount(minlength=3).tolist() == [8, 4, 1]
    assert "3 of 16 images are held out as test images: 20% of each class, chosen at random with seed 0" in notes
    together = {image.numpy().tobytes() for image in torch.cat([dataset.train.pixels, dataset.test.pixels])}
    assert len(together) == 16
    with reading(ReadOptions(holdout=0.2)):
        assert load_with_notes(tmp_path)[0].content_hash == dataset.content_hash
    for wrong in (0.0, 1.0, -1.0, 5.0, float("nan")):
        with pytest.raises(DataError, match="between 0 and 1"):
            load(tmp_path, holdout=wrong)


def test_holdout_beside_a_test_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has a split 'test' already"):
        load(image_folder(tmp_path), holdout=0.2)
    with pytest.raises(DataError, match="leave --holdout"):
        load("digits", holdout=0.2)


def test_several_sizes(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    wide = write(folder / "train" / "ant" / "wide.png", (8, 20, 3))
    with pytest.raises(DataError, match=r"wide.png.* is 8x20 .*--image-size N"):
        load(folder)
    dataset = load(folder, image_size=8)
    assert dataset.input_shape == (3, 8, 8)
    # The shorter side has the size already, so that what is left is the crop of the centre.
    assert any(torch.equal(each, torch.tensor(wide[:, 6:14]).permute(2, 0, 1)) for each in dataset.train.pixels)
    with pytest.raises(DataError, match="Image size 3 is out of range"):
        load(folder, image_size=3)


def test_decoding_to_a_size_is_resizing_afterwards(tmp_path: Path) -> None:
    from ghnq.data import resize_dataset

    folder = image_folder(tmp_path)
    assert load(folder, image_size=9).content_hash == resize_dataset(load(folder), 9).content_hash


def test_damaged_files_are_named_and_skipped_on_request(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    bad = folder / "train" / "bee" / "1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    (folder / "test" / "bee" / "9.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"bee/1.png\) cannot be read.*--skip-unreadable"):
        load(folder)
    dataset, notes = load_with_notes(folder, skip_unreadable=True)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert "2 of 11 images cannot be read and were left out; the first: " in notes
    assert "bee/1.png" in notes
    with pytest.raises(DataError, match="cannot be read"):  # what is cached for one request is not for the other
        load(folder)


def test_grey_among_colour_is_told(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    for name in ("0", "z"):
        array = write(folder / "train" / "ant" / f"{name}.png", (6, 6))
    dataset, notes = load_with_notes(folder)
    assert "2 grey images among colour images became RGB" in notes
    assert torch.equal(dataset.train.pixels[3], torch.tensor(array).expand(3, 6, 6))


def test_unclear_places_are_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "depth")
    write(folder / "train" / "ant" / "red" / "1.png")
    with pytest.raises(DataError, match=r"is the class of train/ant/red/1.png 'ant' or 'red'"):
        load(folder)
    folder = image_folder(tmp_path / "twice")
    write(folder / "Training" / "ant" / "1.png")
    with pytest.raises(DataError, match="all mean the split 'train'"):
        load(folder)
    write(tmp_path / "flat" / "train" / "1.png")
    write(tmp_path / "flat" / "test" / "1.png")
    with pytest.raises(DataError, match="train/CLASS/FILE"):
        load(tmp_path / "flat")


def test_other_folders_and_stray_images_are_told(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    write(folder / "extra" / "ant" / "1.png")
    write(folder / "cover.png")
    dataset, notes = load_with_notes(folder)
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    assert "folders beside the splits are not read: extra" in notes
    assert "1 images in no class folder are left out" in notes


def write_table(file: Path, labels: list[Any], names: list[str] | None = None, **more: list[Any]) -> None:
    images = [{"bytes": png(RNG.integers(0, 256, (4, 4), dtype=np.uint8)), "path": None} for _ in labels]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(images, kind), "label": labels, **more})
    if names is not None:
        listed = ", ".join(f'"{name}"' for name in names)
        features = f'{{"image": {{"_type": "Image"}}, "label": {{"names": [{listed}], "_type": "ClassLabel"}}}}'
        table = table.replace_schema_metadata({"huggingface": f'{{"info": {{"features": {features}}}}}'})
    pq.write_table(table, file)


def test_class_names_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", [0, 1, 1], ["cat", "dog"])
    write_table(tmp_path / "test.parquet", [0, 0, 1], ["dog", "cat"])
    dataset, notes = load_with_notes(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.test.labels.tolist() == [1, 1, 0]
    assert "they are matched by name" in notes
    write_table(tmp_path / "test.parquet", [0, 0, 1], ["dog", "fox"])
    with pytest.raises(DataError, match="its classes are 'dog', 'fox', those of the training split 'cat', 'dog'"):
        load(tmp_path)


@pytest.mark.parametrize("label", [15_075_141, 2**40, 2**63 - 1])
def test_class_numbers_are_bounded(tmp_path: Path, label: int) -> None:
    write_table(tmp_path / "train.parquet", [0, label])
    write_table(tmp_path / "test.parquet", [0, 1])
    with pytest.raises(DataError, match=f"class number {label}; numbers must lie in 0..99999"):
        load(tmp_path)


def test_label_column_can_be_chosen(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.parquet", [0, 1, 2, 0], fine_label=[1, 1, 0, 0])
    dataset, notes = load_with_notes(tmp_path)
    assert dataset.test.labels.tolist() == [0, 1, 2, 0]
    assert "the labels are those of column 'label'; --label-column chooses another: fine_label" in notes
    assert load(tmp_path, label_column="fine_label").test.labels.tolist() == [1, 1, 0, 0]
    with pytest.raises(DataError, match=r"no column 'fine_lable' \(did you mean 'fine_label'\?\)"):
        load(tmp_path, label_column="fine_lable")


def test_a_column_that_may_be_meant_is_told(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.parquet", [0, 1, 2, 0], coarse_label=[1, 1, 0, 0], weight=[1, 2, 3, 4])
    dataset, notes = load_with_notes(tmp_path)
    assert dataset.test.labels.tolist() == [0, 1, 2, 0]
    assert "the labels are those of column 'label'; --label-column chooses another: coarse_label" in notes
    assert "weight" not in notes


def test_a_mistyped_directory_suggests_one_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def dataset_info(self: object, name: str, **_: object) -> None:
        asked.append(name)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    image_folder(tmp_path / "data" / "flowers")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"did you mean 'data/flowers'\?"):
        load("data/flwers")
    assert asked == ["data/flwers"]
    os.chdir("data")
    with pytest.raises(DataError, match=r"'flwers' is not a directory \(did you mean 'flowers'\?\)"):
        load("flwers")
    assert len(asked) == 1


def test_representations_are_short() -> None:
    dataset = load("digits")
    assert repr(dataset) == (
        "ImageDataset('digits': 1437 training and 360 test images of 8x8 pixels with 1 channel, 10 classes)"
    )
    assert repr(dataset.test) == "Images(360 of 8x8 pixels with 1 channel)"
