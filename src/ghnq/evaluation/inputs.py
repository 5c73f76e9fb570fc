"""The images that a hypernetwork's networks are measured on."""

from __future__ import annotations

import torch

from ghnq.data import ImageDataset, load, resize_dataset
from ghnq.errors import DataError
from ghnq.hypernet import GHN


def dataset_for(ghn: GHN, data: str | None = None) -> ImageDataset:
    """Loads the images a hypernetwork was trained on, in the size it was trained on, or another data set by name.

    Images that training had resized are resized here too; they are known by their mean and standard deviation. Other
    images are never resized behind your back: `evaluate` refuses those of another size.
    Raises DataError where the data cannot be loaded, or no name is given and the hypernetwork knows none.
    """
    if data is None and ghn.task is None:
        raise DataError("The checkpoint does not say which images it was trained on; name some (--data).")
    dataset = load(data if data is not None else ghn.task.data)  # type: ignore[union-attr]
    if ghn.task is None or dataset.input_shape == tuple(ghn.task.image_shape):
        return dataset
    channels, height, width = ghn.task.image_shape
    if channels != dataset.input_shape[0] or height != width:
        return dataset
    resized = resize_dataset(dataset, height)
    same_mean = torch.allclose(resized.mean, torch.tensor(ghn.task.mean), atol=1e-3)
    same_std = torch.allclose(resized.std, torch.tensor(ghn.task.std), atol=1e-3)
    return resized if same_mean and same_std else dataset
