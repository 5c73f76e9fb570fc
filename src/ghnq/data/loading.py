"""Loads a data set by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnq.data.cache import directory_key, read_cache, write_cache
from ghnq.data.digits import load_digits
from ghnq.data.hub import read_with_datasets
from ghnq.data.images import ImageDataset, Images
from ghnq.errors import DataError, nearest

EMBEDDED = ("digits",)
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load(name: str | Path, *, image_size: int | None = None, flip: bool | None = None) -> ImageDataset:
    """Loads a data set by name.

    Decoded directories are cached (`ghnq.data.cache`).

    Args:
        name: `digits`, a directory that `datasets` can read, or a name on the hub.
        image_size: resizes every image to this height and width (bilinear with antialiasing).
        flip: whether augmentation mirrors images; by default it does unless all classes are single characters.

    Raises:
        DataError: there is no such data set, or its images are inconsistent.
    """
    dataset = _load(str(name))
    if flip is not None:
        dataset = replace(dataset, flip=flip)
    return dataset if image_size is None else resize_dataset(dataset, image_size)


def resize_dataset(dataset: ImageDataset, image_size: int) -> ImageDataset:
    """Returns the data set with all images resized to image_size x image_size pixels, and its statistics recomputed.

    Raises:
        DataError: the size is outside of 4..512.
    """
    if not 4 <= image_size <= 512:
        raise DataError(f"Image size {image_size} is out of range: choose between 4 and 512 pixels.")
    if dataset.input_shape[1:] == (image_size, image_size):
        return dataset
    train, test = (Images(_resize(part.pixels, image_size), part.labels) for part in (dataset.train, dataset.test))
    return ImageDataset.build(dataset.name, train, test, dataset.class_names, flip=dataset.flip)


def _load(name: str) -> ImageDataset:
    if name == "digits":
        return load_digits()
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _load_directory(name, path)
    hint = nearest(name, EMBEDDED)
    looks_like_path = not _HUB_NAME.fullmatch(name) or name.startswith(".") or path.exists()
    if looks_like_path or ("/" not in name and hint):
        kind = "is a file" if path.is_file() else "is not a directory"
        raise DataError(
            f"Data set '{name}' {kind}{hint}. Give 'digits', a directory (parquet files or image folders with the "
            "splits train and test), or a name on the hub (owner/name)."
        )
    return read_with_datasets(name, local=False)


def _load_directory(name: str, path: Path) -> ImageDataset:
    key = directory_key(path)
    dataset = read_cache(path, key)
    if dataset is None:
        dataset = read_with_datasets(str(path), local=True)
        write_cache(path, key, dataset)
    return replace(dataset, name=name)


def _resize(pixels: Tensor, size: int) -> Tensor:
    """uint8 [B, C, H, W] to uint8 [B, C, size, size], a thousand images at a time to bound the memory in floats."""
    parts = [
        F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
        for part in torch.split(pixels, 1000)
    ]
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])
