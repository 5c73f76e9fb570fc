"""Encoded splits -> a data set: decoding, class names, the hold-out, and what is to be told about the images.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ghnq.data.decode import Decoder, EncodedImage
from ghnq.data.images import ImageDataset, Images
from ghnq.data.read_options import ReadOptions
from ghnq.data.shuffle import permutation
from ghnq.errors import DataError

# Figures on data sets without a test split depend on it: never change this number.
HOLDOUT_SEED = 0
_NAMED = 5  # classes that a message lists


@dataclass(frozen=True)
class EncodedSplit:
    """Images of a split, or of a part of it, that are not decoded yet.

    Attributes:
        where: Data set and split, for messages.
        images: The images.
        labels: int64 [B].
        class_names: What the labels are called; None where they are only numbers.
    """

    where: str
    images: Iterable[EncodedImage]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...] | None


def assemble(name: str, splits: dict[str, list[EncodedSplit]], options: ReadOptions) -> tuple[ImageDataset, list[str]]:
    """Decodes the training split and the one to test on, and makes a data set of them.

    Args:
        name: Of the data set.
        splits: The parts of `train` and of at most one other split.
        options: All are heeded but `label_column`.

    Returns:
        The data set, and sentences about it: conversions, images that were left out or that occur in both splits,
        classes without images.

    Raises:
        DataError: A split is missing, images cannot be read or differ in size, or classes do not agree.
    """
    test_name = _test_split(name, splits, options)
    notes: list[str] = []
    class_names = _class_names(splits, notes)
    decoder = Decoder(options)
    train = _decode(splits["train"], decoder, class_names)
    if test_name is None:
        train, test = _hold_out(name, train, options.holdout or 0.0)
        notes.append(
            f"{len(test)} of {len(train) + len(test)} images are held out as test images: {options.holdout:.0%} of "
            f"each class, chosen at random with seed {HOLDOUT_SEED}"
        )
    else:
        test = _decode(splits[test_name], decoder, class_names)
    train, test = _one_channel_count(train, test)
    names = class_names or tuple(str(number) for number in range(max(0, int(train.labels.max())) + 1))
    if len(names) < 2:
        raise DataError(f"{name}: has {len(names)} class, '{names[0]}'; a classifier needs at least two.")
    dataset = ImageDataset.build(name, train, test, names, flip=not _are_characters(names))
    return dataset, notes + decoder.notes() + _about_classes(dataset) + _about_repeats(dataset)


def _test_split(name: str, splits: dict[str, list[EncodedSplit]], options: ReadOptions) -> str | None:
    test = next((split for split in splits if split != "train"), None)
    if "train" not in splits or (test is None and options.holdout is None):
        advice = " --holdout 0.2 takes a fifth of each class as test images." if "train" in splits else ""
        raise DataError(
            f"{name}: needs the splits 'train' and 'test' (or 'validation'); it has {sorted(splits)}.{advice}"
        )
    if test is not None and options.holdout is not None:
        raise DataError(f"{name}: has a split '{test}' already; a hold-out (--holdout) is for data sets without one.")
    return test


def _class_names(splits: dict[str, list[EncodedSplit]], notes: list[str]) -> tuple[str, ...] | None:
    """Returns the class names of the first training part, to which all others are mapped by name."""
    parts = [part for split in ("train", *splits) for part in splits[split]]
    first = parts[0].class_names
    for part in parts:
        if first is None or part.class_names is None or part.class_names == first:
            continue
        if len(set(first)) != len(first) or not set(part.class_names) <= set(first):
            raise DataError(
                f"{part.where}: its classes are {_some(part.class_names)}, those of the training split {_some(first)}. "
                "Both must have the same names."
            )
        note = (
            f"the classes of {part.where} have another order than those of the training split; they are matched by name"
        )
        if note not in notes:
            notes.append(note)
    return first


def _decode(parts: list[EncodedSplit], decoder: Decoder, class_names: tuple[str, ...] | None) -> Images:
    total = sum(len(part.labels) for part in parts)
    pixels, kept = decoder.decode((image for part in parts for image in part.images), total, parts[0].where)
    labels = torch.from_numpy(np.concatenate([_by_name(part, class_names) for part in parts]))
    return Images(pixels, labels if len(kept) == total else labels[kept])


def _by_name(part: EncodedSplit, class_names: tuple[str, ...] | None) -> npt.NDArray[np.int64]:
    if class_names is None or part.class_names is None or part.class_names == class_names:
        return part.labels
    position = np.array([class_names.index(each) for each in part.class_names], dtype=np.int64)
    inside = (part.labels >= 0) & (part.labels < len(position))
    return np.where(inside, position[np.where(inside, part.labels, 0)], part.labels)


def _hold_out(name: str, images: Images, fraction: float) -> tuple[Images, Images]:
    """Splits off a part of each class: at least one image, and never all."""
    labels = images.labels.numpy()
    held = np.zeros(len(labels), dtype=bool)
    for number in set(labels.tolist()):
        members = np.flatnonzero(labels == number)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held[members[permutation(len(members), HOLDOUT_SEED, number)[:count]]] = True
    if not held.any():
        raise DataError(f"{name}: every class has only one image, so none can be held out for testing.")
    parts = [images.take(torch.from_numpy(np.flatnonzero(chosen))) for chosen in (~held, held)]
    return parts[0], parts[1]


def _one_channel_count(train: Images, test: Images) -> tuple[Images, Images]:
    """Makes grey images RGB where the other split has colours."""
    channels = max(train.pixels.shape[1], test.pixels.shape[1])
    first, second = (
        each if each.pixels.shape[1] == channels else Images(each.pixels.repeat(1, channels, 1, 1), each.labels)
        for each in (train, test)
    )
    return first, second


def _about_classes(dataset: ImageDataset) -> list[str]:
    notes = []
    for split, images in (("training", dataset.train), ("test", dataset.test)):
        present = set(images.labels.tolist())
        missing = [each for number, each in enumerate(dataset.class_names) if number not in present]
        if missing:
            what = "1 class has" if len(missing) == 1 else f"{len(missing)} classes have"
            notes.append(f"{what} no {split} images: {_some(missing)}")
    return notes


def _about_repeats(dataset: ImageDataset) -> list[str]:
    """Counts test images whose pixels are those of a training image, bit for bit."""
    train = {_digest(image) for image in dataset.train.pixels.numpy()}
    count = sum(_digest(image) in train for image in dataset.test.pixels.numpy())
    if not count:
        return []
    return [f"{count} of {len(dataset.test)} test images are identical to training images, so accuracy is overrated"]


def _digest(image: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _are_characters(class_names: tuple[str, ...]) -> bool:
    """Mirrored digits and letters change their meaning, so classes named by one character are not flipped."""
    return all(len(name) == 1 for name in class_names)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(f"'{each}'" for each in listed[:_NAMED]) + more
