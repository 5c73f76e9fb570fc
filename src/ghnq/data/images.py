"""Image data sets in memory as uint8: splits, statistics, normalisation, augmentation and batches.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ghnq.data.augment import pad_crop, random_flip
from ghnq.data.read_options import ReadOptions
from ghnq.data.shuffle import balanced, mix, permutation
from ghnq.errors import DataError, check_type

# Every published figure depends on the subset that `first(n)` takes: never change this number.
_SUBSET_SEED = 20231


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one split.

    Attributes:
        pixels: uint8 [B, C, H, W].
        labels: int64 [B].
        soft: float32 [B, classes], target probabilities for training that replace the labels.

    Raises:
        DataError: there is no image, or a shape or dtype is wrong.
    """

    pixels: Tensor
    labels: Tensor
    soft: Tensor | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise DataError(
                f"Images must be uint8 [B, C, H, W], not {self.pixels.dtype} of shape {tuple(self.pixels.shape)}."
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise DataError(
                f"Labels must be int64 [{len(self.pixels)}], one for each image, not {self.labels.dtype} of shape "
                f"{tuple(self.labels.shape)}."
            )
        if self.soft is not None and (self.soft.dtype != torch.float32 or len(self.soft) != len(self.pixels)):
            raise DataError(
                f"Soft labels must be float32 [{len(self.pixels)}, classes], not {self.soft.dtype} of shape "
                f"{tuple(self.soft.shape)}."
            )
        if not len(self.pixels):
            raise DataError("A split without images: give at least one image in the training and in the test split.")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Images({len(self)} of {_size(self)})"

    def take(self, indices: Tensor) -> Images:
        """Returns the images at `indices` (int64 [B]), in that order."""
        soft = None if self.soft is None else self.soft[indices]
        return Images(self.pixels[indices], self.labels[indices], soft)

    @property
    def targets(self) -> Tensor:
        """The targets for training: `soft` if present, else the labels."""
        return self.labels if self.soft is None else self.soft

    def to(self, device: torch.device) -> Images:
        """Returns the images on a device."""
        soft = None if self.soft is None else self.soft.to(device)
        return Images(self.pixels.to(device), self.labels.to(device), soft)

    def first(self, count: int) -> Images:
        """Returns a fixed subset of `count` images, balanced over classes, the same on every machine.

        Subsets are nested: `first(100)` is the beginning of `first(200)`.

        Raises:
            DataError: `count` is below 1 or above the number of images.
        """
        self._check_count(count, "test subset")
        return self.take(torch.from_numpy(balanced(self.labels.numpy(), _SUBSET_SEED)[:count]))

    def balanced(self, count: int, seed: int) -> Images:
        """Returns `count` random images, balanced over classes; raises DataError as `first` does."""
        self._check_count(count, "sample")
        return self.take(self.balanced_order(seed)[:count])

    def balanced_order(self, seed: int) -> Tensor:
        """Returns all positions, int64 [B], in a random order every prefix of which is balanced over classes."""
        return torch.from_numpy(balanced(self.labels.numpy(), seed))

    def _check_count(self, count: int, what: str) -> None:
        if not 1 <= count <= len(self):
            raise DataError(f"A {what} of {count} images is not possible; choose between 1 and {len(self)}.")


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A data set of small images: a training and a test split, and the statistics of the training split.

    Attributes:
        name: `digits`, a hub id, or a directory's own name, without the folders above it.
        train, test: the splits.
        class_names: one for each label.
        flip: whether mirrored images keep their class.
        mean, std: float32 [C], of pixels scaled to 0..1; std is 1 for a constant channel.
        read_options: how the images were read.
    """

    name: str
    train: Images
    test: Images
    class_names: tuple[str, ...]
    flip: bool
    mean: Tensor
    std: Tensor
    read_options: ReadOptions = field(default_factory=ReadOptions)

    @classmethod
    def build(cls, name: str, train: Images, test: Images, class_names: tuple[str, ...], *, flip: bool) -> ImageDataset:
        """Checks that the splits are consistent, and computes mean and std.

        Raises:
            DataError: image sizes or channel counts differ, or a label is not one of the classes.
        """
        if train.pixels.shape[1:] != test.pixels.shape[1:]:
            raise DataError(
                f"{name}: training images are {_size(train)} but test images are {_size(test)}; they must be equal. "
                "--image-size N makes them so."
            )
        for split, images in (("training", train), ("test", test)):
            low, high = int(images.labels.min()), int(images.labels.max())
            if low < 0 or high >= len(class_names):
                raise DataError(
                    f"{name}: {split} labels run from {low} to {high}, but there are {len(class_names)} classes, so "
                    f"they must lie in 0..{len(class_names) - 1}. (A label of -1 often means that labels are withheld.)"
                )
        mean, std = channel_statistics(train.pixels)
        return cls(name, train, test, class_names, flip, mean, std)

    def __repr__(self) -> str:
        return (
            f"ImageDataset('{self.name}': {len(self.train)} training and {len(self.test)} test images of "
            f"{_size(self.train)}, {self.num_classes} classes)"
        )

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    @property
    def padding(self) -> int:
        """The largest shift of `augment` in pixels: an eighth of the shorter side (4 at 32x32, 1 at 8x8)."""
        return max(1, min(self.input_shape[1:]) // 8)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of pixels and labels of both splits: data sets with equal hashes give equal results."""
        digest = hashlib.sha256(repr((self.train.pixels.shape, self.test.pixels.shape, self.class_names)).encode())
        for images in (self.train, self.test):
            digest.update(images.pixels.contiguous().numpy().data)
            digest.update(images.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def record(self) -> dict[str, Any]:
        """Returns what files and documents say about the images, for JSON.

        That is the name, the hash, and how they were read, where anything was said about that.
        """
        options = self.read_options.record()
        return {"data": self.name, "data_sha256": self.content_hash} | ({"read_options": options} if options else {})

    def normalise(self, pixels: Tensor) -> Tensor:
        """Returns (pixels / 255 - mean) / std: uint8 [B, C, H, W] to float32 of the same shape, on the same device."""
        mean = (255 * self.mean).to(pixels.device).view(-1, 1, 1)
        scale = (1 / (255 * self.std)).to(pixels.device).view(-1, 1, 1)
        return pixels.to(torch.float32).sub_(mean).mul_(scale)

    def augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Shifts each image by up to `padding` pixels and, if `flip`, mirrors half of them.

        Args:
            pixels: uint8 [B, C, H, W].
            generator: on the CPU; the only source of randomness.
        """
        shifted = pad_crop(pixels, self.padding, generator)
        return random_flip(shifted, generator) if self.flip else shifted

    def batch_indices(self, step: int, batch_size: int, seed: int) -> Tensor:
        """Returns the indices of the training images of a step: int64 [batch_size], a pure function of the arguments.

        Steps read one endless stream of epochs, each in its own random order: every image occurs exactly once per
        epoch, all batches have the same size, and a run resumed at any step sees the same batches as an uninterrupted
        one.
        """
        if batch_size < 1 or step < 0:
            raise DataError(f"Step {step} with batch size {batch_size}: steps start at 0 and batches at 1.")
        total = len(self.train)
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        epochs, within = np.divmod(positions, total)
        parts = [_epoch_order(total, int(epoch), seed)[within[epochs == epoch]] for epoch in np.unique(epochs)]
        return torch.from_numpy(np.concatenate(parts))

    def train_batch(self, step: int, batch_size: int, seed: int, *, augment: bool = True) -> tuple[Tensor, Tensor]:
        """Returns the (augmented) normalised batch of a step: float32 [B, C, H, W] and labels int64 [B] (or soft ones).

        A pure function of its arguments, so resuming needs no saved state of the data.
        """
        chosen = self.train.take(self.batch_indices(step, batch_size, seed))
        if not augment:
            return self.normalise(chosen.pixels), chosen.targets
        generator = torch.Generator().manual_seed(mix(seed, step, 1))
        return self.normalise(self.augment(chosen.pixels, generator)), chosen.targets

    def calibration(self, count: int, seed: int) -> Tensor:
        """Returns `count` normalised training images, balanced over classes: float32 [B, C, H, W], not augmented.

        Raises:
            DataError: the training split has fewer images.
        """
        return self.normalise(self.train.balanced(count, seed).pixels)


def channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and population standard deviation per channel of uint8 [B, C, H, W] scaled to 0..1: float32 [C].

    Exact up to the final rounding: sums are taken over integer counts of the 256 values. A constant channel has std 1,
    so normalising it gives zero.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)])
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = (weights * values).sum(1)
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    constant = (counts > 0).sum(1) == 1
    return mean.float(), torch.where(constant, 1.0, variance.sqrt()).float()


@lru_cache(maxsize=4)
def _epoch_order(total: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
    order = permutation(total, seed, epoch)
    order.setflags(write=False)
    return order


def _size(images: Images) -> str:
    channels, height, width = images.pixels.shape[1:]
    return f"{height}x{width} pixels with {channels} channel{'s' if channels != 1 else ''}"


def check_dataset_type(dataset: object, call: str) -> None:
    """Checks that an argument of `call` is a data set.

    Raises:
        GhnqError: It is not.
    """
    check_type(dataset, ImageDataset, call, "ghnq.load_dataset('digits') is one")
