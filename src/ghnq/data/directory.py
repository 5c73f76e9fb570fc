"""Reads a directory: parquet files, or folders of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ghnq.data.assemble import EncodedSplit, assemble
from ghnq.data.decode import EncodedImage
from ghnq.data.folder_files import find_files
from ghnq.data.images import ImageDataset
from ghnq.data.read_options import ReadOptions
from ghnq.data.tables import encoded_splits, read_parquet
from ghnq.errors import DataError


def read_directory(directory: Path, options: ReadOptions) -> tuple[ImageDataset, list[str]]:
    """Finds the files of each split and decodes all images into memory.

    Returns:
        The data set, named by the path, and sentences about it.

    Raises:
        DataError: There are no images, a split or a class is missing or not clear, or images are inconsistent.
    """
    name = str(directory)
    files = find_files(directory)
    if files.tables:
        parts = {split: [read_parquet(file) for file in paths] for split, paths in files.tables.items()}
        splits, notes = encoded_splits(name, parts, options.label_column)
    else:
        splits, notes = _image_splits(name, files.images), []
        if options.label_column is not None:
            raise DataError(f"{name}: has folders of images, whose labels are their folders; leave --label-column out.")
    dataset, more = assemble(name, splits, options)
    return dataset, [*files.notes, *notes, *more]


def _image_splits(name: str, images: dict[str, list[tuple[Path, str]]]) -> dict[str, list[EncodedSplit]]:
    class_names = tuple(sorted({label for part in images.values() for _, label in part}))
    number = {label: index for index, label in enumerate(class_names)}
    return {
        split: [
            EncodedSplit(
                f"{name}, split {split}",
                _encoded([file for file, _ in part]),
                np.array([number[label] for _, label in part], dtype=np.int64),
                class_names,
            )
        ]
        for split, part in images.items()
    }


def _encoded(files: list[Path]) -> Iterator[EncodedImage]:
    for file in files:
        yield {"bytes": None, "path": str(file)}
