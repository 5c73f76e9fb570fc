"""The embedded data set: real handwritten digits (Alpaydin & Kaynak 1998, UCI), 1,797 images of 8x8."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt
import torch

from ghnq.data.images import ImageDataset, Images
from ghnq.data.shuffle import balanced

# Every published figure depends on the split: never change these numbers.
_SPLIT_SEED = 8
_TEST_IMAGES = 360


def load_digits() -> ImageDataset:
    """Returns the digits with their fixed split, balanced over classes: 1,437 training and 360 test images, 1x8x8.

    The values 0..16 are scaled to 0..255. Augmentation does not mirror digits.
    """
    table = _read_table()
    pixels = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, -1].astype(np.int64)
    everything = Images(torch.from_numpy(pixels), torch.from_numpy(labels))
    order = torch.from_numpy(balanced(labels, _SPLIT_SEED))
    return ImageDataset.build(
        "digits",
        train=everything.take(order[_TEST_IMAGES:].sort().values),
        test=everything.take(order[:_TEST_IMAGES].sort().values),
        class_names=tuple("0123456789"),
        flip=False,
    )


def _read_table() -> npt.NDArray[np.float64]:
    """Returns 64 pixel values and the digit for each image: float64 [1797, 65].

    The file is a copy of scikit-learn's: with scipy, which it needs, that is 200 MB to install.
    """
    with as_file(files("ghnq.data") / "uci_digits" / "digits.csv.gz") as file:
        return np.loadtxt(file, delimiter=",")
