"""Measuring a run on the way: unseen `val` architectures on training images that were held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ghnq.data import ImageDataset, Images
from ghnq.errors import TrainingError
from ghnq.graph.trace import trace
from ghnq.hypernet.initialize import with_parameters
from ghnq.hypernet.model import GHN
from ghnq.quant import prepare
from ghnq.spaces import convnets
from ghnq.training.recipe import Recipe

CHUNK = 512


def held_out(dataset: ImageDataset, count: int, seed: int) -> tuple[ImageDataset, Images]:
    """Splits training images into (what is trained on, `count` for validation, balanced over classes)."""
    if count > len(dataset.train) // 2:
        raise TrainingError(
            f"validation.images is {count}, more than half of the {len(dataset.train)} training images of "
            f"'{dataset.name}'"
        )
    order = dataset.train.balanced_order(seed)
    return replace(dataset, train=dataset.train.take(order[count:])), dataset.train.take(order[:count])


@torch.no_grad()
def validate(ghn: GHN, dataset: ImageDataset, images: Images, recipe: Recipe) -> dict[str, float]:
    """Float accuracy of predicted networks in percent (mean, standard error, max), batch norm calibrated."""
    pixels = dataset.normalise(images.pixels)
    calibration = dataset.calibration(min(recipe.validation.calibration, len(dataset.train)), recipe.seed)
    accuracies = []
    for index in range(recipe.validation.architectures):
        spec = convnets.spec("val", index)
        module = convnets.build(
            spec, in_channels=dataset.input_shape[0], num_classes=dataset.num_classes, device="meta"
        )
        network = with_parameters(module, ghn.predict(trace(module, dataset.input_shape)))
        network = prepare(network, calibration).quantize("float32")
        correct = [
            (network(x).argmax(1) == y).float().sum()
            for x, y in zip(torch.split(pixels, CHUNK), torch.split(images.labels, CHUNK), strict=True)
        ]
        accuracies.append(100 * float(torch.stack(correct).sum()) / len(images))
    values = np.array(accuracies)
    sem = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return {"val/accuracy": float(values.mean()), "val/sem": sem, "val/max": float(values.max())}
