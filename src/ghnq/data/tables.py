"""Tables with a column of images and one of class numbers: parquet files, or what `datasets` loads from the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ghnq.data.assemble import EncodedSplit
from ghnq.data.decode import EncodedImage
from ghnq.errors import DataError, nearest
from ghnq.optional_imports import import_optional
from ghnq.shadowing import check_not_shadowed

if TYPE_CHECKING:
    import datasets

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
MAX_CLASSES = 100_000  # more are taken for a mistake: class numbers that are hashes, or another column


def read_parquet(file: Path) -> datasets.Dataset:
    """Reads one parquet file; column types of `datasets` are heeded, and none of its caches is used.

    Raises:
        DataError: It is not a parquet file, or is damaged.
        GhnqError: A file of the user's is imported in place of `datasets`.
        MissingExtraError: `datasets` is not installed.
    """
    import_optional("datasets", f"'{file.parent}' holds parquet files, and ")
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_not_shadowed("datasets")
    try:
        return datasets.Dataset(datasets.table.InMemoryTable(pq.ParquetFile(file).read()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise DataError(
            f"Data set '{file.parent}' cannot be loaded: {file.name}: {error} The directory must hold parquet files or "
            "image folders with the splits train and test."
        ) from error


def encoded_splits(
    name: str, splits: Mapping[str, list[datasets.Dataset]], label_column: str | None
) -> tuple[dict[str, list[EncodedSplit]], list[str]]:
    """Finds the columns, and returns images and labels of each part of each split.

    Args:
        name: Of the data set, for messages.
        splits: The parts (files) of each split.
        label_column: The column of labels; None looks for one.

    Returns:
        The parts by split, and what is to be told about the choice of columns.

    Raises:
        DataError: A column is missing or holds other things, or there are too many classes.
    """
    features = next(iter(splits.values()))[0].features
    notes: list[str] = []
    image_column = _image_column(name, features, notes)
    label = _label_column(name, features, label_column, notes)
    encoded = {
        split: [_encode(part, f"{name}, split {split}", image_column, label) for part in parts]
        for split, parts in splits.items()
    }
    return encoded, notes


def _encode(part: datasets.Dataset, where: str, image_column: str, label_column: str) -> EncodedSplit:
    import datasets

    missing = {image_column, label_column} - set(part.features)
    if missing:
        raise DataError(f"{where}: has no column {sorted(missing)}; its columns are {_list(part.features)}.")
    feature = part.features[label_column]
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    raw = part.select_columns([image_column, label_column])
    try:
        raw = raw.cast_column(image_column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(f"{where}: column '{image_column}' does not hold images: {error}") from error
    return EncodedSplit(where, _column(raw, image_column), _labels(raw, label_column, where), names)


def _labels(raw: datasets.Dataset, column: str, where: str) -> npt.NDArray[np.int64]:
    values = [-1 if label is None else label for label in raw[column]]
    wrong = next((value for value in values if not isinstance(value, int)), None)
    if wrong is not None:
        raise DataError(f"{where}: column '{column}' must hold class numbers (integers or ClassLabel), not {wrong!r}.")
    highest = max(values, default=0)
    if highest >= MAX_CLASSES:
        raise DataError(
            f"{where}: column '{column}' has the class number {highest}; numbers must lie in 0..{MAX_CLASSES - 1}. "
            "Number the classes from 0, or name another column (--label-column)."
        )
    if values and min(values) < -1:
        raise DataError(f"{where}: column '{column}' has the class number {min(values)}; numbers start at 0.")
    return np.array(values, dtype=np.int64)


def _column(raw: datasets.Dataset, column: str) -> Iterator[EncodedImage]:
    for batch in raw.iter(batch_size=1024):
        for item in batch[column]:
            yield item if item is not None else {"bytes": None, "path": None}


def _image_column(name: str, features: Mapping[str, object], notes: list[str]) -> str:
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
    if len(found) > 1:
        notes.append(
            f"the images are those of column '{chosen}'; others with images are not read: {_but(found, chosen)}"
        )
    return chosen


def _label_column(name: str, features: Mapping[str, object], wanted: str | None, notes: list[str]) -> str:
    import datasets

    found = [
        column
        for column, feature in features.items()
        if column in _LABEL_COLUMNS or isinstance(feature, datasets.ClassLabel)
    ]
    if wanted is not None and wanted not in features:
        raise DataError(
            f"{name}: has no column '{wanted}'{nearest(wanted, features)}; its columns are {_list(features)}."
        )
    chosen = wanted if wanted is not None else _choose(found, _LABEL_COLUMNS)
    if chosen is None:
        hint = next((nearest(column, _LABEL_COLUMNS) for column in features if nearest(column, _LABEL_COLUMNS)), "")
        raise DataError(
            f"{name}: needs one column of class labels (named label, labels, fine_label or class){hint}; its columns "
            f"are {_list(features)}. Name one (--label-column)."
        )
    feature = features[chosen]
    if not _is_integer(feature):
        raise DataError(f"{name}: column '{chosen}' must hold class numbers (integers or ClassLabel), not {feature}.")
    # Integers under such a name (`coarse_label`) are not taken for labels by themselves, but may be meant.
    also = [column for column in features if column.endswith(("_label", "_labels")) and _is_integer(features[column])]
    candidates = list(dict.fromkeys(found + also))
    if wanted is None and len(candidates) > 1:
        notes.append(
            f"the labels are those of column '{chosen}'; --label-column chooses another: {_but(candidates, chosen)}"
        )
    return chosen


def _is_integer(feature: object) -> bool:
    import datasets

    return isinstance(feature, datasets.ClassLabel) or "int" in str(getattr(feature, "dtype", ""))


def _choose(found: list[str], preferred: Iterable[str]) -> str | None:
    by_name = [column for column in preferred if column in found]
    if by_name:
        return by_name[0]
    return found[0] if len(found) == 1 else None


def _but(found: list[str], chosen: str) -> str:
    return ", ".join(column for column in found if column != chosen)


def _list(features: Mapping[str, object]) -> str:
    return ", ".join(f"{column} ({type(feature).__name__})" for column, feature in features.items())
