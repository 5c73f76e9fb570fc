"""The images and the space that belong to a hypernetwork, and whether other images fit it."""

from __future__ import annotations

import warnings

import torch

from ghnq import spaces
from ghnq.data import ImageDataset, ReadOptions, RecordedImages, resize_dataset
from ghnq.errors import DataError, GhnqWarning
from ghnq.hypernet import GHN
from ghnq.spaces import Space, Spec


def dataset_for(ghn: GHN, data: str | None = None) -> ImageDataset:
    """Loads the images a hypernetwork was trained on, in the size it was trained on, or another data set by name.

    Images that were resized for training are resized here as well; where the checkpoint does not say how they were
    read, they are recognised by their mean and standard deviation. Images of another size are never resized silently;
    `check_dataset` refuses them.

    Raises:
        DataError: The data set cannot be loaded, or no name is given and the hypernetwork does not name one.
    """
    if data is None and ghn.task is None:
        raise DataError("The checkpoint does not say which images it was trained on; name a data set (--data).")
    dataset = _recorded(ghn).load(data)
    if ghn.task is None or dataset.input_shape == tuple(ghn.task.image_shape):
        return dataset
    channels, height, width = ghn.task.image_shape
    if channels != dataset.input_shape[0] or height != width:
        return dataset
    resized = resize_dataset(dataset, height)
    return resized if _same_statistics(ghn, resized) else dataset


def space_of(ghn: GHN) -> Space[Spec]:
    """Returns the space whose architectures a hypernetwork was trained on; the default space where that is not known.

    Raises:
        SpaceError: The space is not registered in this process.
    """
    return spaces.get(spaces.DEFAULT if ghn.task is None else ghn.task.space)


def check_dataset(ghn: GHN, dataset: ImageDataset) -> None:
    """Checks that images have the shape and the number of classes that a hypernetwork predicts for.

    Raises:
        DataError: They have not.
    """
    if ghn.config.num_classes != dataset.num_classes:
        raise DataError(
            f"The hypernetwork predicts networks for {ghn.config.num_classes} classes, but '{dataset.name}' has "
            f"{dataset.num_classes}; name other images (--data), or train one for these."
        )
    if ghn.task is not None and tuple(ghn.task.image_shape) != dataset.input_shape:
        expected, given = ("x".join(map(str, shape)) for shape in (ghn.task.image_shape, dataset.input_shape))
        raise DataError(
            f"The hypernetwork was trained on images of {expected} (channels, height, width; '{ghn.task.data}'), but "
            f"those of '{dataset.name}' are {given}. Resize them (`ghnq.data.load(name, image_size=...)`) or "
            "take another checkpoint."
        )


def are_own_images(ghn: GHN, dataset: ImageDataset) -> bool:
    """Returns whether a data set is the one that a hypernetwork was trained on, or may be: what its classes mean.

    The hash of the images decides, where the checkpoint stores it; else their mean and standard deviation. A checkpoint
    that does not know its images is taken at its word.
    """
    task = ghn.task
    if task is None:
        return True
    if task.data_sha256 is not None:
        return task.data_sha256 == dataset.content_hash
    return _same_statistics(ghn, dataset)


def _same_statistics(ghn: GHN, dataset: ImageDataset) -> bool:
    assert ghn.task is not None
    mean, std = torch.tensor(ghn.task.mean), torch.tensor(ghn.task.std)
    if mean.shape != dataset.mean.shape:
        return False
    return torch.allclose(dataset.mean, mean, atol=1e-3) and torch.allclose(dataset.std, std, atol=1e-3)


def warn_about_other_images(ghn: GHN, dataset: ImageDataset) -> None:
    """Warns where a hypernetwork was trained on other images than those of a data set, training and test split alike.

    Checkpoints that do not store the hash of their images are not judged.
    """
    recorded = _recorded(ghn)
    if difference := recorded.difference(dataset):
        warnings.warn(
            f"the hypernetwork was trained on other images ('{recorded.name}') than those it is measured on "
            f"('{dataset.name}'): {difference}; if its classes are others, too, solve the head for them "
            "(`ghnq.transfer`)",
            GhnqWarning,
            stacklevel=3,
        )


def _recorded(ghn: GHN) -> RecordedImages:
    """Returns what a hypernetwork says about its images."""
    if ghn.task is None:
        return RecordedImages("the checkpoint", None)
    options = ReadOptions.from_record(ghn.task.read_options or {})
    return RecordedImages("the checkpoint", ghn.task.data, ghn.task.data_sha256, options)


def check_outputs(outputs: int, dataset: ImageDataset) -> None:
    """Checks that a model has at least as many outputs as the data set has classes.

    Raises:
        DataError: It has fewer.
    """
    if outputs < dataset.num_classes:
        raise DataError(
            f"The model has {outputs} outputs, '{dataset.name}' has {dataset.num_classes} classes; take a model with "
            f"{dataset.num_classes} outputs, or other images (--data)."
        )
