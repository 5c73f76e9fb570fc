"""Measuring a run on the way: unseen `val` architectures on training images that were held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ghnq.data import ImageDataset, Images
from ghnq.errors import TrainingError
from ghnq.evaluation.evaluator import Evaluator
from ghnq.hypernet.model import GHN
from ghnq.quant.scheme import QuantScheme
from ghnq.training.run.recipe import Recipe

PROTOCOL = "deploy"


def held_out(dataset: ImageDataset, count: int, seed: int) -> tuple[ImageDataset, Images]:
    """Splits training images into (what is trained on, `count` for validation, balanced over classes)."""
    if count > len(dataset.train) // 2:
        raise TrainingError(
            f"validation.images is {count}, more than half of the {len(dataset.train)} training images of "
            f"'{dataset.name}'"
        )
    order = dataset.train.balanced_order(seed)
    return replace(dataset, train=dataset.train.take(order[count:])), dataset.train.take(order[:count])


def validate(ghn: GHN, dataset: ImageDataset, images: Images, recipe: Recipe) -> dict[str, float]:
    """Accuracy of predicted networks in percent (mean, standard error, max), calibrated, under the recipe's schemes.

    `val/accuracy` is the mean over the schemes, of which each has its own figure where there are several. Measured as
    an evaluation measures: answers that are not finite count as wrong, and are counted.
    """
    count = min(recipe.validation.calibration, len(dataset.train))
    schemes = recipe.validation.schemes
    evaluator = Evaluator(
        ghn=ghn,
        dataset=dataset,
        images=images,
        calibration=dataset.calibration(count, recipe.seed),
        protocol=PROTOCOL,
        named={word: QuantScheme.parse(word, steps=recipe.quantization.steps) for word in schemes},
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
