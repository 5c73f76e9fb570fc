"""Validation during a run: architectures of split `val` on training images that were held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ghnq.data import ImageDataset, Images
from ghnq.errors import TrainingError
from ghnq.evaluation.evaluator import Evaluator
from ghnq.hypernet.model import GHN
from ghnq.quant.scheme import QuantScheme
from ghnq.training.recipe import Recipe


def split_validation(dataset: ImageDataset, count: int, seed: int) -> tuple[ImageDataset, Images]:
    """Returns the data set without, and the images with, `count` training images for validation, balanced over classes.

    Raises:
        TrainingError: That is more than half of them.
    """
    if count > len(dataset.train) // 2:
        raise TrainingError(
            f"validation.images is {count}, more than half of the {len(dataset.train)} training images of "
            f"'{dataset.name}'"
        )
    order = dataset.train.balanced_order(seed)
    return replace(dataset, train=dataset.train.take(order[count:])), dataset.train.take(order[:count])


def validate(ghn: GHN, dataset: ImageDataset, images: Images, recipe: Recipe) -> dict[str, float]:
    """Returns the accuracy of calibrated predicted networks under the recipe's schemes, in percent.

    `val/accuracy`, `val/sem` and `val/max` are mean, standard error and maximum over architectures of the mean over
    schemes; with several schemes each has its own mean as well. As in an evaluation, images with non-finite logits
    count as wrong; `val/nonfinite` is their number.
    """
    asked = recipe.quantization
    count = min(recipe.validation.calibration, len(dataset.train))
    schemes = recipe.validation.schemes
    evaluator = Evaluator(
        ghn=ghn,
        dataset=dataset,
        images=images,
        calibration=dataset.calibration(count, recipe.seed),
        protocol=asked.protocol,
        named={name: QuantScheme.parse(name, protocol=asked.protocol, steps=asked.steps) for name in schemes},
    )
    rows = [evaluator.measure("val", index, schemes) for index in range(recipe.validation.architectures)]
    values = np.array([[100 * row["correct"] / row["images"] for row in under] for under in rows])  # [M, schemes]
    means = values.mean(1)
    sem = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")
    several = {f"val/{scheme}": float(mean) for scheme, mean in zip(schemes, values.mean(0), strict=True)}
    return {
        "val/accuracy": float(means.mean()),
        "val/sem": sem,
        "val/max": float(means.max()),
        "val/nonfinite": float(sum(row["nonfinite"] for under in rows for row in under)),
        **(several if len(schemes) > 1 else {}),
    }
