"""Decodes images (PNG, JPEG, ...) into one uint8 tensor.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ghnq.errors import DataError

_CHANNELS = {"1": 1, "L": 1, "RGB": 3, "P": 3}  # palette images become RGB, black and white images grey


class EncodedImage(TypedDict):
    """An image as `datasets` stores it: the bytes of a file, or its path; both are None for a missing image."""

    bytes: bytes | None
    path: str | None


def decode_images(encoded: Iterable[EncodedImage], total: int, where: str) -> Tensor:
    """Decodes images, each given as {"bytes": ... or None, "path": ... or None}, into uint8 [B, C, H, W].

    Args:
        encoded: the images.
        total: how many there are.
        where: the name of the split, for error messages.

    Raises:
        DataError: an image cannot be read, its mode is neither grey nor RGB, or its size or channel count differs from
            those of the first image.
    """
    pixels = np.empty(0, dtype=np.uint8)
    for index, item in enumerate(encoded):
        image = _decode(item, index, where)
        if index == 0:
            pixels = np.empty((total, *image.shape), dtype=np.uint8)
        elif image.shape != pixels.shape[1:]:
            raise DataError(
                f"{where}: {_title(item, index)} is {_size(image)}, but the first image is {_size(pixels[0])}. All "
                "images must have one size and one channel count: resize or convert them first."
            )
        pixels[index] = image
    if not pixels.size:
        raise DataError(f"{where}: the split has no images.")
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _decode(item: EncodedImage, index: int, where: str) -> npt.NDArray[np.uint8]:
    """Returns uint8 [H, W, C]."""
    encoded, path = item["bytes"], item["path"]
    source = io.BytesIO(encoded) if encoded is not None else path
    if source is None:
        raise DataError(f"{where}: {_title(item, index)} is empty (null).")
    try:
        with Image.open(source) as image:
            if image.mode not in _CHANNELS:
                raise DataError(
                    f"{where}: {_title(item, index)} has mode {image.mode}; ghnq reads grey (L) and RGB images. "
                    "Convert it first (an alpha channel must be laid over a background)."
                )
            array = np.asarray(image.convert("L" if _CHANNELS[image.mode] == 1 else "RGB"))
    # Pillow reports broken files by many exceptions: SyntaxError for PNG chunks, ValueError, OSError for truncation.
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: {_title(item, index)} cannot be read: {error}") from error
    return array if array.ndim == 3 else array[:, :, None]


def _title(item: EncodedImage, index: int) -> str:
    return f"image {index}" + (f" ({item['path']})" if item.get("path") else "")


def _size(image: npt.NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"
