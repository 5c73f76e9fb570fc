"""Reads data sets with `datasets.load_dataset`: a directory of parquet files, image folders, or a name on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ghnq.data.decode import EncodedImage, decode_images
from ghnq.data.images import ImageDataset, Images
from ghnq.errors import DataError, nearest

if TYPE_CHECKING:
    import datasets

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_TEST_SPLITS = ("test", "validation", "valid", "val")


def read_with_datasets(name: str, *, local: bool) -> ImageDataset:
    """Reads the splits `train` and `test` (or `validation`), finds the columns, and decodes all images into memory.

    Args:
        name: a directory, or a name on the hub.
        local: whether `name` is a directory.

    Raises:
        DataError: the data set cannot be loaded, lacks a split or a column, or its images are inconsistent.
    """
    splits = _load_splits(name, local)
    test_name = next((split for split in _TEST_SPLITS if split in splits), None)
    if "train" not in splits or test_name is None:
        raise DataError(f"{name}: needs the splits 'train' and 'test' (or 'validation'); it has {sorted(splits)}.")
    features = splits["train"].features
    image_column, label_column = _image_column(name, features), _label_column(name, features)
    train = _decode_split(splits["train"], f"{name}, split train", image_column, label_column)
    test = _decode_split(splits[test_name], f"{name}, split {test_name}", image_column, label_column)
    class_names = _class_names(features[label_column], train)
    return ImageDataset.build(name, train, test, class_names, flip=not _are_characters(class_names))


def _load_splits(name: str, local: bool) -> dict[str, datasets.Dataset]:
    import datasets
    import pyarrow as pa

    bars_were_on = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(name)
    # OSError covers the hub's HTTP and connection errors; ValueError a missing configuration or an unknown layout.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        advice = (
            "The directory must hold parquet files or image folders with the splits train and test."
            if local
            else "There is no such directory, and it cannot be loaded from the hub: check the name and the connection, "
            "or download it and pass its directory."
        )
        raise DataError(f"Data set '{name}' cannot be loaded: {cause or error} {advice}") from error
    finally:
        if bars_were_on:
            datasets.enable_progress_bars()
    return {str(split): part for split, part in loaded.items()}


def _image_column(name: str, features: Mapping[str, object]) -> str:
    import datasets

    def holds_images(feature: object) -> bool:
        # A parquet file written without `datasets` has no Image type, only the struct that stands for it.
        return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})

    found = [column for column, feature in features.items() if holds_images(feature)]
    chosen = _choose(found, _IMAGE_COLUMNS)
    if chosen is None:
        raise DataError(
            f"{name}: needs one column of images (named image or img); "
            + (f"it has {len(found)}: {found}." if found else f"its columns are {_list(features)}.")
        )
    return chosen


def _label_column(name: str, features: Mapping[str, object]) -> str:
    import datasets

    named = [column for column in _LABEL_COLUMNS if column in features]
    found = named or [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    chosen = _choose(found, _LABEL_COLUMNS)
    if chosen is None:
        hint = next((nearest(column, _LABEL_COLUMNS) for column in features if nearest(column, _LABEL_COLUMNS)), "")
        raise DataError(
            f"{name}: needs one column of class labels (named label, labels or fine_label){hint}; its columns are "
            f"{_list(features)}."
        )
    feature = features[chosen]
    integer = isinstance(feature, datasets.ClassLabel) or "int" in str(getattr(feature, "dtype", ""))
    if not integer:
        raise DataError(f"{name}: column '{chosen}' must hold class numbers (integers or ClassLabel), not {feature}.")
    return chosen


def _choose(found: list[str], preferred: Iterable[str]) -> str | None:
    by_name = [column for column in preferred if column in found]
    if by_name:
        return by_name[0]
    return found[0] if len(found) == 1 else None


def _decode_split(part: datasets.Dataset, where: str, image_column: str, label_column: str) -> Images:
    import datasets

    missing = {image_column, label_column} - set(part.features)
    if missing:
        raise DataError(f"{where}: has no column {sorted(missing)}; its columns are {_list(part.features)}.")
    raw = part.select_columns([image_column, label_column]).cast_column(image_column, datasets.Image(decode=False))
    labels = np.array([-1 if label is None else label for label in raw[label_column]], dtype=np.int64)
    pixels = decode_images(_column(raw, image_column), len(raw), where)
    return Images(pixels, torch.from_numpy(labels))


def _column(raw: datasets.Dataset, column: str) -> Iterator[EncodedImage]:
    for batch in raw.iter(batch_size=1024):
        for item in batch[column]:
            yield item if item is not None else {"bytes": None, "path": None}


def _class_names(feature: object, train: Images) -> tuple[str, ...]:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return tuple(feature.names)
    return tuple(str(number) for number in range(max(0, int(train.labels.max())) + 1))


def _are_characters(class_names: tuple[str, ...]) -> bool:
    """Mirrored digits and letters change their meaning, so classes named by one character are not flipped."""
    return all(len(name) == 1 for name in class_names)


def _list(features: Mapping[str, object]) -> str:
    return ", ".join(f"{column} ({type(feature).__name__})" for column, feature in features.items())
