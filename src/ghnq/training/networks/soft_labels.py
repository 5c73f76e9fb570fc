"""Soft labels: a trained teacher's class probabilities for every training image, in a file that a recipe names.

Distillation (Hinton et al. 2015, arXiv 1503.02531) with the teacher evaluated once instead of in every step.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ghnq.data import ImageDataset
from ghnq.errors import RecipeError
from ghnq.files import atomic_path

_KEY, _DATA = "probabilities", "data_hash"


def save_soft_labels(probabilities: Tensor, dataset: ImageDataset, file: str | Path) -> None:
    """Writes a teacher's probabilities [images, classes] for the training split, in its order, as float16."""
    with atomic_path(file) as temporary:
        tensors = {_KEY: probabilities.to(torch.float16).contiguous()}
        save_file(tensors, temporary, {_DATA: dataset.content_hash})


def with_soft_labels(dataset: ImageDataset, file: str | Path) -> ImageDataset:
    """Returns the data set with the soft labels of a file in its training split.

    Raises:
        RecipeError: There is no such file, it does not hold soft labels, or they belong to other images.
    """
    try:
        with safe_open(file, "pt") as opened:
            metadata, found = opened.metadata() or {}, list(opened.keys())
            probabilities = opened.get_tensor(_KEY).float() if _KEY in found else torch.empty(0)
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"soft_labels '{file}' cannot be read: {error}") from error
    if metadata.get(_DATA) != dataset.content_hash:
        raise RecipeError(
            f"soft_labels '{file}' were not made for the images of '{dataset.name}' at this size: their order would be "
            "another. Make them again with save_soft_labels"
        )
    expected = (len(dataset.train), dataset.num_classes)
    if probabilities.shape != expected:
        raise RecipeError(f"soft_labels '{file}' must hold '{_KEY}' of shape {expected}, not {found}")
    sums = probabilities.sum(1)
    if not bool((probabilities >= 0).all()) or not torch.allclose(sums, torch.ones(()), atol=0.01):
        raise RecipeError(f"soft_labels '{file}': every row must be probabilities that sum to 1")
    soft = probabilities / sums[:, None]
    return replace(dataset, train=replace(dataset.train, soft=soft))
