"""Decodes images (PNG, JPEG, ...) into one uint8 tensor.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ghnq.data.pixel_modes import UnknownModeError, to_pixels
from ghnq.data.read_options import ReadOptions
from ghnq.data.resize import resize_and_crop
from ghnq.errors import DataError


class EncodedImage(TypedDict):
    """An image as `datasets` stores it: the bytes of a file, or its path; both are None for a missing image."""

    bytes: bytes | None
    path: str | None


@dataclass
class Decoder:
    """Decodes the splits of one data set, and counts what had to be converted or left out.

    Attributes:
        options: `image_size` and `skip_unreadable` are heeded.
    """

    options: ReadOptions
    _converted: Counter[str] = field(default_factory=Counter)
    _unreadable: list[str] = field(default_factory=list)
    _seen: int = 0

    def decode(self, encoded: Iterable[EncodedImage], total: int, where: str) -> tuple[Tensor, Tensor]:
        """Decodes images, each given as {"bytes": ... or None, "path": ... or None}.

        Grey images among colour images become RGB.

        Args:
            encoded: the images.
            total: how many there are.
            where: the name of the split, for error messages.

        Returns:
            The pixels, uint8 [B, C, H, W], and the positions of the images that could be read, int64 [B].

        Raises:
            DataError: an image cannot be read, or its size differs from that of the first image.
        """
        pixels = np.empty((0, 0, 0, 1), dtype=np.uint8)
        kept: list[int] = []
        grey = 0
        for index, item in enumerate(encoded):
            self._seen += 1
            try:
                image = self._decode(item, index, where)
            except _UnreadableError as error:
                self._leave_out(str(error))
                continue
            if not kept:
                pixels = np.empty((total, *image.shape), dtype=np.uint8)
            elif image.shape[:2] != pixels.shape[1:3]:
                raise DataError(
                    f"{where}: {_title(item, index)} is {_size(image)}, but the first image is {_size(pixels[0])}. All "
                    "images must have one size: give one (--image-size N), and the shorter side of each is resized to "
                    "it and the centre is cropped."
                )
            elif image.shape[2] > pixels.shape[3]:
                pixels = np.repeat(pixels, image.shape[2], axis=3)
            pixels[len(kept)] = image
            grey += image.shape[2] == 1
            kept.append(index)
        if not kept:
            raise DataError(f"{where}: the split has no images" + (" that can be read." if total else "."))
        if pixels.shape[3] == 3 and grey:
            self._converted["grey images among colour images became RGB"] += grey
        pixels = pixels[: len(kept)]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))), torch.tensor(kept)

    def notes(self) -> list[str]:
        """Returns one sentence for each kind of conversion, and one for images that were left out."""
        notes = [f"{count} {what}" for what, count in sorted(self._converted.items())]
        if self._unreadable:
            notes.append(
                f"{len(self._unreadable)} of {self._seen} images cannot be read and were left out; the first: "
                f"{self._unreadable[0]}"
            )
        return notes

    def _leave_out(self, message: str) -> None:
        if not self.options.skip_unreadable:
            raise DataError(
                f"{message}. Mend or delete it; or --skip-unreadable leaves such images out and counts them."
            )
        self._unreadable.append(message)

    def _decode(self, item: EncodedImage, index: int, where: str) -> npt.NDArray[np.uint8]:
        """Returns uint8 [H, W, C]."""
        encoded, path = item["bytes"], item["path"]
        source = io.BytesIO(encoded) if encoded is not None else path
        if source is None:
            raise _UnreadableError(f"{where}: {_title(item, index)} is empty (null)")
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                Image.open(source) as image,
            ):  # Pillow's, of damaged EXIF data
                array, converted = to_pixels(image)
        except UnknownModeError as error:
            raise DataError(f"{where}: {_title(item, index)} has {error}.") from error
        # Pillow reports broken files by many exceptions: SyntaxError for PNG chunks, OSError for truncation.
        except (
            UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, EOFError, ArithmeticError, LookupError,
            Image.DecompressionBombError,
        ) as error:  # fmt: skip
            raise _UnreadableError(f"{where}: {_title(item, index)} cannot be read: {error}") from error
        self._converted.update(converted)
        return array if self.options.image_size is None else _resize(array, self.options.image_size)


class _UnreadableError(Exception):
    pass


def _resize(array: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    pixels = torch.from_numpy(np.array(array.transpose(2, 0, 1)))[None]
    resized: npt.NDArray[np.uint8] = resize_and_crop(pixels, size)[0].permute(1, 2, 0).numpy()
    return resized


def _title(item: EncodedImage, index: int) -> str:
    return f"image {index}" + (f" ({item['path']})" if item.get("path") else "")


def _size(image: npt.NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"
