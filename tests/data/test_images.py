"""Images and their data set: statistics, order, subsets, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.data import ImageDataset, Images, load, mix
from ghnq.data.images import channel_statistics
from ghnq.errors import DataError


def random_images(count: int, shape: tuple[int, int, int] = (3, 6, 6), classes: int = 4, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *shape), generator=generator).to(torch.uint8)
    return Images(pixels, torch.randint(0, classes, (count,), generator=generator))


def random_dataset(train: int = 37, test: int = 20, *, flip: bool = True) -> ImageDataset:
    names = ("cat", "dog", "eel", "fox")
    return ImageDataset.build("made up", random_images(train), random_images(test, seed=1), names, flip=flip)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_statistics_equal_numpy_in_double(count: int, seed: int) -> None:
    pixels = random_images(count, seed=seed).pixels
    mean, std = channel_statistics(pixels)
    scaled = pixels.numpy().astype(np.float64) / 255
    # Exact up to the rounding to float32 of a double that numpy sums in another order.
    np.testing.assert_allclose(mean.numpy(), scaled.mean(axis=(0, 2, 3)).astype(np.float32), rtol=1.2e-7)
    np.testing.assert_allclose(std.numpy(), scaled.std(axis=(0, 2, 3)).astype(np.float32), rtol=1.2e-7)


def test_mean_of_a_million_pixels_is_exact() -> None:
    pixels = torch.full((1000, 1, 40, 40), 255, dtype=torch.uint8)
    pixels[0, 0, 0, 0] = 0
    mean, _ = channel_statistics(pixels)
    assert mean.item() == np.float32(1 - 1 / 1_600_000)


def test_constant_channel_normalises_to_zero() -> None:
    train = random_images(8)
    train.pixels[:, 1] = 77
    dataset = ImageDataset.build("flat", train, random_images(4), ("a1", "b1", "c1", "d1"), flip=True)
    normalised = dataset.normalise(train.pixels)
    assert dataset.std[1] == 1
    assert normalised[:, 1].abs().max() < 1e-6
    assert normalised.isfinite().all()


def test_normalise_matches_the_formula() -> None:
    dataset = random_dataset()
    pixels = dataset.test.pixels
    before = pixels.clone()
    double = (pixels.double() / 255 - dataset.mean.double().view(3, 1, 1)) / dataset.std.double().view(3, 1, 1)
    normalised = dataset.normalise(pixels)
    assert normalised.dtype == torch.float32
    assert (normalised.double() - double).abs().max() < 1e-6
    assert torch.equal(pixels, before)


def test_normalised_training_images_have_mean_zero_and_std_one() -> None:
    dataset = random_dataset(200)
    normalised = dataset.normalise(dataset.train.pixels).double()
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-6
    assert (normalised.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(0, 50))
def test_stream_of_batches_is_a_sequence_of_permutations(batch_size: int, seed: int) -> None:
    dataset = random_dataset(37)
    steps = -(-3 * 37 // batch_size)
    stream = torch.cat([dataset.batch_indices(step, batch_size, seed) for step in range(steps)])[: 3 * 37]
    epochs = stream.view(3, 37)
    assert torch.equal(epochs.sort(1).values, torch.arange(37).expand(3, 37))
    assert not torch.equal(epochs[0], epochs[1])


def test_batches_are_independent_of_earlier_calls() -> None:
    forward = {step: random_dataset().train_batch(step, 16, 5) for step in range(6)}
    other = random_dataset()
    for step in (5, 0, 3):
        pixels, labels = other.train_batch(step, 16, 5)
        assert torch.equal(pixels, forward[step][0])
        assert torch.equal(labels, forward[step][1])
    assert not torch.equal(other.batch_indices(2, 16, 5), other.batch_indices(2, 16, 6))


def test_batch_is_the_augmented_images_with_their_labels() -> None:
    dataset = random_dataset()
    pixels, labels = dataset.train_batch(2, 16, 5)
    indices = dataset.batch_indices(2, 16, 5)
    generator = torch.Generator().manual_seed(mix(5, 2, 1))
    expected = dataset.normalise(dataset.augment(dataset.train.pixels[indices], generator))
    assert torch.equal(pixels, expected)
    assert torch.equal(labels, dataset.train.labels[indices])


def test_batch_without_augmentation_is_the_normalised_images() -> None:
    dataset = random_dataset()
    pixels, labels = dataset.train_batch(2, 16, 5, augment=False)
    indices = dataset.batch_indices(2, 16, 5)
    assert torch.equal(pixels, dataset.normalise(dataset.train.pixels[indices]))
    assert torch.equal(labels, dataset.train.labels[indices])
    assert not torch.equal(pixels, dataset.train_batch(2, 16, 5)[0])


def test_augment_mirrors_only_if_flip() -> None:
    marked = torch.zeros(64, 3, 6, 6, dtype=torch.uint8)
    marked[:, :, 2:4, 0:3] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    for flip in (True, False):
        dataset = random_dataset(flip=flip)
        augmented = dataset.augment(marked, torch.Generator().manual_seed(0)).int()
        falls = (augmented[..., :-1] > augmented[..., 1:]) & (augmented[..., 1:] > 0)
        assert bool(falls.any()) is flip


@pytest.mark.parametrize(("step", "batch_size"), [(-1, 4), (0, 0)])
def test_invalid_batches_are_refused(step: int, batch_size: int) -> None:
    with pytest.raises(DataError, match="batches at 1"):
        random_dataset().batch_indices(step, batch_size, 0)


def test_subsets_are_nested_balanced_and_fixed() -> None:
    digits = load("digits")
    subset = digits.test.first(100)
    assert subset.labels.bincount().tolist() == [10] * 10
    assert torch.equal(digits.test.first(37).pixels, subset.pixels[:37])
    assert digits.test.first(12).labels.tolist() == [5, 1, 2, 0, 6, 7, 4, 8, 3, 9, 8, 5]


@pytest.mark.parametrize("count", [0, -1, 361])
def test_subsets_larger_than_the_split_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} images is not possible; choose between 1 and 360"):
        load("digits").test.first(count)


def test_calibration_comes_from_the_training_split_and_is_balanced() -> None:
    digits = load("digits")
    images = digits.calibration(200, seed=3)
    rows = {
        row.numpy().tobytes(): int(label) for row, label in zip(digits.train.pixels, digits.train.labels, strict=True)
    }
    restored = (images * digits.std.view(1, 1, 1) + digits.mean.view(1, 1, 1)).mul(255).round().to(torch.uint8)
    labels = [rows[row.numpy().tobytes()] for row in restored]
    assert np.bincount(labels).tolist() == [20] * 10
    assert torch.equal(images, digits.calibration(200, seed=3))
    assert not torch.equal(images, digits.calibration(200, seed=4))
    with pytest.raises(DataError, match="choose between 1 and 1437"):
        digits.calibration(1438, seed=0)


def test_digits_and_their_split_are_fixed() -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    digits = load("digits")
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.input_shape == (1, 8, 8)
    assert (digits.flip, digits.padding, digits.num_classes) == (False, 1, 10)
    assert digits.test.labels.bincount().tolist() == [36] * 10
    ours = torch.cat([digits.train.pixels, digits.test.pixels]).numpy().reshape(1797, 64)
    labels = torch.cat([digits.train.labels, digits.test.labels]).numpy()
    together = sorted((tuple(row), int(label)) for row, label in zip(ours, labels, strict=True))
    expected = np.rint(raw.data * 255 / 16).astype(np.uint8)
    assert together == sorted((tuple(row), int(label)) for row, label in zip(expected, raw.target, strict=True))
    assert digits.content_hash == "251036d0fd449ccb753a63bd59c9bd2940295eb09a6990e473788e3a0c172b0d"


def test_content_hash_covers_every_part() -> None:
    first = random_dataset()
    hashes = {first.content_hash, random_dataset(flip=False).content_hash}
    assert len(hashes) == 1
    for part in (first.train.pixels, first.test.pixels, first.train.labels, first.test.labels):
        changed = random_dataset()
        part_of_changed = {
            id(first.train.pixels): changed.train.pixels,
            id(first.test.pixels): changed.test.pixels,
            id(first.train.labels): changed.train.labels,
            id(first.test.labels): changed.test.labels,
        }[id(part)]
        part_of_changed.view(-1)[3] ^= 1
        hashes.add(changed.content_hash)
    assert len(hashes) == 5


def test_inconsistent_splits_are_refused() -> None:
    names = ("a1", "b1", "c1", "d1")
    with pytest.raises(DataError, match="6x6 pixels with 3 channels but test images are 6x6 pixels with 1 channel;"):
        ImageDataset.build("x", random_images(4), random_images(4, (1, 6, 6)), names, flip=True)
    with pytest.raises(DataError, match=r"test labels run from \d to 3, but there are 3 classes"):
        ImageDataset.build("x", random_images(9, classes=3), random_images(40), names[:3], flip=True)
    withheld = Images(random_images(2).pixels, torch.tensor([-1, -1]))
    with pytest.raises(DataError, match="withheld"):
        ImageDataset.build("x", random_images(4), withheld, names, flip=True)


def test_wrong_tensors_are_refused() -> None:
    with pytest.raises(DataError, match="without images"):
        Images(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match=r"uint8 \[B, C, H, W\], not torch.float32"):
        Images(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match="one for each image"):
        Images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
