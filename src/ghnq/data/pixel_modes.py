"""An open image of any mode (palette, CMYK, 16 bits, transparent, turned by EXIF) -> grey or RGB pixels.

Dimensions: H height, W width, C channels.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from PIL import Image

_GREY = {"1", "L", "LA", "La"}
_ALPHA = {"RGBA", "RGBa", "LA", "La", "PA"}
_COLOUR = {"RGB", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}

TRANSPARENT = "transparent images were laid over white"
SIXTEEN_BITS = "16-bit grey images were reduced to 8 bits"
CMYK = "CMYK images were converted to RGB"
TURNED = "images were turned upright as their EXIF orientation says"

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {  # Exif 2.32, table of the tag Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnknownModeError(ValueError):
    """Pixels of a kind that has no one conversion to 8 bits."""


def to_pixels(image: Image.Image) -> tuple[npt.NDArray[np.uint8], set[str]]:
    """Returns the pixels as uint8 [H, W, C] with C of 1 or 3, and which conversions changed what is seen.

    Raises:
        UnknownModeError: The pixels are neither grey (8 or 16 bits) nor colour (8 bits).
    """
    done = set()
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
        done.add(TURNED)
    if image.mode.startswith("I"):
        return _from_16_bits(image), done | {SIXTEEN_BITS}
    if image.mode not in _GREY | _COLOUR:
        raise UnknownModeError(
            f"mode {image.mode}; ghnq reads grey (8 or 16 bits), RGB, RGBA, palette and CMYK images: convert it first"
        )
    if image.mode == "CMYK":
        done.add(CMYK)
    grey = image.mode in _GREY
    if image.mode in _ALPHA or "transparency" in image.info:
        image, visible = _over_white(image)
        if visible:
            done.add(TRANSPARENT)
    array = np.asarray(image.convert("L" if grey else "RGB"))
    return (array[:, :, None] if grey else array), done


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation; 1 (upright) where there is none, or where the EXIF data are damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1


def _over_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """Lays an image over white; returns RGB, or the image itself and False where all of it is opaque."""
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema()[0] == 255:
        return (layered.convert("RGB") if image.mode in _ALPHA else image), False
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB"), True


def _from_16_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise UnknownModeError(f"values from {values.min()} to {values.max()}; grey images have 8 or 16 bits")
    return np.rint(values / 257).astype(np.uint8)[:, :, None]
