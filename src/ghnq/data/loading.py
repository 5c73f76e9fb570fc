"""Loads a data set by name."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ghnq.data.cache import directory_key, read_cache, write_cache
from ghnq.data.digits import load_digits
from ghnq.data.directory import read_directory
from ghnq.data.hub import read_from_hub
from ghnq.data.images import ImageDataset, Images
from ghnq.data.read_options import ReadOptions, current
from ghnq.data.resize import resize_and_crop
from ghnq.errors import DataError, GhnqWarning, nearest
from ghnq.recorded_names import data_name

EMBEDDED = ("digits",)
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load(
    name: str | Path,
    *,
    image_size: int | None = None,
    flip: bool | None = None,
    holdout: float | None = None,
    label_column: str | None = None,
    skip_unreadable: bool = False,
) -> ImageDataset:
    """Loads a data set by name.

    A directory has folders of images (`train/CLASS/FILE` and `test/CLASS/FILE`, or `CLASS/FILE` with `holdout`) or
    parquet files with a split in their names. Decoded directories are cached (`ghnq.data.cache`). What was converted,
    left out or looks wrong is told by a `GhnqWarning`.

    Args:
        name: `digits`, a directory, or a name on the hub.
        image_size: resizes the shorter side of every image to this many pixels (bilinear with antialiasing) and crops
            the centre.
        flip: whether augmentation mirrors images; by default it does unless all classes are single characters.
        holdout: where there is no test split, the part of the images of each class that becomes it, such as 0.2.
        label_column: the column of labels, where a table has several.
        skip_unreadable: leaves out images that cannot be read, and counts them.

    Raises:
        DataError: there is no such data set, or its images are inconsistent.
    """
    given = current()
    options = ReadOptions(
        holdout=given.holdout if holdout is None else holdout,
        image_size=given.image_size if image_size is None else image_size,
        label_column=given.label_column if label_column is None else label_column,
        skip_unreadable=skip_unreadable or given.skip_unreadable,
    )
    dataset = _load(str(name), options)
    return replace(dataset, read_options=options, flip=dataset.flip if flip is None else flip)


def resize_dataset(dataset: ImageDataset, image_size: int) -> ImageDataset:
    """Returns the data set with all images of image_size x image_size pixels, and its statistics recomputed.

    The shorter side is resized, then the centre is cropped.

    Raises:
        DataError: the size is outside of 4..512.
    """
    ReadOptions(image_size=image_size)  # checks the range
    if dataset.input_shape[1:] == (image_size, image_size):
        return dataset
    train, test = (
        Images(resize_and_crop(part.pixels, image_size), part.labels) for part in (dataset.train, dataset.test)
    )
    resized = ImageDataset.build(dataset.name, train, test, dataset.class_names, flip=dataset.flip)
    return replace(resized, read_options=replace(dataset.read_options, image_size=image_size))


def _load(name: str, options: ReadOptions) -> ImageDataset:
    if name == "digits":
        return _load_embedded(options)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _load_directory(name, path, options)
    hint = nearest(name, EMBEDDED) or _near_path(path)
    looks_like_path = not _HUB_NAME.fullmatch(name) or name.startswith(".") or path.exists()
    if looks_like_path or ("/" not in name and hint):
        kind = "is a file" if path.is_file() else "is not a directory"
        raise DataError(
            f"Data set '{name}' {kind}{hint}. Give 'digits', a directory (parquet files or image folders with the "
            "splits train and test), or a name on the hub (owner/name)."
        )
    dataset, notes = read_from_hub(name, options, hint)
    _tell(name, notes)
    return dataset


def _load_embedded(options: ReadOptions) -> ImageDataset:
    if options.holdout is not None or options.label_column is not None:
        raise DataError("'digits' has a test split and one column of labels; leave --holdout and --label-column out.")
    dataset = load_digits()
    return dataset if options.image_size is None else resize_dataset(dataset, options.image_size)


def _load_directory(name: str, path: Path, options: ReadOptions) -> ImageDataset:
    key = directory_key(path, options)
    cached = read_cache(path, key, options)
    if cached is None:
        cached = read_directory(path, options)
        write_cache(path, key, options, *cached)
    dataset, notes = cached
    _tell(name, notes)
    return replace(dataset, name=data_name(path))


def _tell(name: str, notes: Iterable[str]) -> None:
    for note in notes:
        warnings.warn(f"'{name}': {note}", GhnqWarning, stacklevel=5)


def _near_path(path: Path) -> str:
    """Returns ` (did you mean 'x'?)` for the directory whose name is closest, beside where the path would be."""
    try:
        beside = [each.name for each in path.parent.iterdir() if each.is_dir()]
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
    return f" (did you mean '{path.parent / close[0]}'?)" if close else ""
