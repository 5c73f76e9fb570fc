"""Training images that are held out, for everything that is chosen: nothing is chosen by test images."""

from __future__ import annotations

from dataclasses import replace

from ghnq.data import ImageDataset, Images

FRACTION = 0.1
MAX_HELD_OUT = 2000
_SEED = 7411  # Fixed: who measures on held-out images, and who trains without them, must mean the same ones.


def held_out_count(images: int) -> int:
    """Returns how many of so many training images are held out."""
    return min(int(FRACTION * images), MAX_HELD_OUT)


def hold_out(dataset: ImageDataset) -> tuple[ImageDataset, Images | None]:
    """Returns the data set without the held-out training images, and these, balanced over classes.

    A tenth of the training images is held out, at most MAX_HELD_OUT; none of fewer than ten images. Always the same
    ones for the same data set.
    """
    count = held_out_count(len(dataset.train))
    if count == 0:
        return dataset, None
    order = dataset.train.balanced_order(_SEED)
    return replace(dataset, train=dataset.train.take(order[count:])), dataset.train.take(order[:count])
