"""The images that belong to a hypernetwork."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

from ghnq.data import ImageDataset, load, resize_dataset
from ghnq.errors import DataError, GhnqWarning
from ghnq.hypernet import GHN, Task
from ghnq.prediction import dataset_for, warn_about_other_images


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


def test_other_images_than_those_of_training_are_told_in_one_line(ghn: GHN) -> None:
    digits = load("digits")
    pixels = digits.test.pixels.clone()
    pixels[-1, 0, 0, 0] ^= 1  # one bit of one pixel of the test split
    other = replace(digits, name="copies", test=replace(digits.test, pixels=pixels))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ghn.task = task((1, 8, 8), digits)  # an earlier version's, without the hash
        warn_about_other_images(ghn, other)
        ghn.task = ghn.task.model_copy(update={"data_sha256": digits.content_hash})
        warn_about_other_images(ghn, digits)
        warn_about_other_images(ghn, load("digits"))
    with pytest.warns(GhnqWarning, match=r"trained on other images \('digits'\) .*\('copies'\)") as told:
        warn_about_other_images(ghn, other)
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    ghn.task = None
    warn_about_other_images(ghn, other)
