"""Images of every mode against what Pillow and arithmetic say they look like."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from ghnq.data.pixel_modes import CMYK, SIXTEEN_BITS, TRANSPARENT, TURNED, UnknownModeError, to_pixels

RNG = np.random.default_rng(2)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def random_image(*shape: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = saved(random_image(5, 7, 3), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(image))
    pixels, done = to_pixels(image)
    assert np.array_equal(pixels, expected)
    assert pixels.shape == ((7, 5, 3) if orientation > 4 else (5, 7, 3))
    assert done == (set() if orientation == 1 else {TURNED})


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored() -> None:
    image = saved(random_image(5, 7, 3), "JPEG", exif=b"Exif\x00\x00II*\x00garbage")
    pixels, done = to_pixels(image)
    assert (pixels.shape, done) == ((5, 7, 3), set())


def test_alpha_is_laid_over_white() -> None:
    array = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    pixels, done = to_pixels(saved(Image.fromarray(array)))
    alpha = array[:, :, 3:].astype(float) / 255
    assert np.abs(pixels - (array[:, :, :3] * alpha + 255 * (1 - alpha))).max() <= 1
    assert done == {TRANSPARENT}


def test_grey_with_alpha_stays_grey() -> None:
    array = RNG.integers(0, 256, (5, 7, 2), dtype=np.uint8)
    pixels, done = to_pixels(saved(Image.fromarray(array, "LA")))
    alpha = array[:, :, 1:].astype(float) / 255
    assert pixels.shape == (5, 7, 1)
    assert np.abs(pixels - (array[:, :, :1] * alpha + 255 * (1 - alpha))).max() <= 1
    assert done == {TRANSPARENT}


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    array = np.full((4, 4, 3), 40, dtype=np.uint8)
    array[:2] = 200
    image = Image.fromarray(array).convert(mode) if mode != "P" else Image.fromarray(array).quantize(2)
    key = image.getpixel((0, 3))
    pixels, done = to_pixels(saved(image, transparency=key))
    assert (pixels[2:] == 255).all()
    assert (pixels[:2] == 200).all()
    assert pixels.shape[2] == (1 if mode == "L" else 3)
    assert done == {TRANSPARENT}


def test_opaque_alpha_changes_nothing() -> None:
    array = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    array[:, :, 3] = 255
    pixels, done = to_pixels(saved(Image.fromarray(array)))
    assert np.array_equal(pixels, array[:, :, :3])
    assert done == set()


def test_16_bits() -> None:
    array = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    array[0, :2] = 0, 65535
    pixels, done = to_pixels(saved(Image.fromarray(array)))
    assert np.array_equal(pixels[:, :, 0], np.rint(array / 257))
    assert done == {SIXTEEN_BITS}


def test_cmyk() -> None:
    image = saved(random_image(8, 8, 3).convert("CMYK"), "JPEG")
    expected = np.asarray(image.convert("RGB"))
    pixels, done = to_pixels(image)
    assert np.array_equal(pixels, expected)
    assert done == {CMYK}


def test_floating_point_is_refused() -> None:
    with pytest.raises(UnknownModeError, match="mode F"):
        to_pixels(saved(Image.fromarray(np.ones((3, 3), dtype=np.float32)), "TIFF"))
