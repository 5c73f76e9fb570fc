"""The images that belong to a hypernetwork."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ghnq.data import ImageDataset, load, resize_dataset
from ghnq.errors import DataError
from ghnq.hypernet import GHN, Task
from ghnq.prediction import dataset_for


def task(shape: tuple[int, int, int], dataset: ImageDataset) -> Task:
    return Task(
        data=dataset.name, image_shape=shape, mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist())
    )


def test_images_are_resized_as_in_training_only_if_they_are_the_same(ghn: GHN) -> None:
    digits = load("digits")
    assert dataset_for(ghn, "digits").content_hash == digits.content_hash
    ghn.task = task((1, 8, 8), digits)
    assert dataset_for(ghn).content_hash == digits.content_hash
    larger = resize_dataset(digits, 16)
    ghn.task = task((1, 16, 16), larger)
    assert dataset_for(ghn).content_hash == larger.content_hash
    assert dataset_for(ghn, "digits").content_hash == larger.content_hash
    other = replace(larger, mean=larger.mean + 0.1)
    ghn.task = task((1, 16, 16), other)
    assert dataset_for(ghn, "digits").input_shape == (1, 8, 8)
    ghn.task = task((3, 16, 16), larger)
    assert dataset_for(ghn, "digits").input_shape == (1, 8, 8)
    ghn.task = None
    with pytest.raises(DataError, match="does not say which images"):
        dataset_for(ghn)
