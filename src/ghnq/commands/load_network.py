"""What the commands on one model share: the model, its parameters, and its images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from ghnq.commands.weight_options import ChosenWeights, choose_weights
from ghnq.data import ImageDataset, Images
from ghnq.errors import DataError, GhnqWarning
from ghnq.models import load_model
from ghnq.prediction import CALIBRATION_IMAGES, CALIBRATION_SEED, Network, StoredWeights, check_outputs


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network, where its parameters come from, its data set, and the test images that were asked for."""

    network: Network
    weights: ChosenWeights
    dataset: ImageDataset
    images: Images


def load_network(
    model: str,
    *,
    checkpoint: str | None,
    weights: Path | None,
    data: str | None,
    head: str | None = None,
    images: int | None = None,
    calibration: int | None = None,
    output: str | None = None,
) -> Loaded:
    """Loads parameters and images, and builds the model for these images.

    Args:
        checkpoint: What predicts the parameters; None without the option.
        weights: A file that has them, in place of a checkpoint.
        head: `--head` (`choose_weights`).
        images: How many test images; None is all.
        calibration: How many training images for calibration; None is `CALIBRATION_IMAGES`. Fewer if there are fewer.
        output: Which of several results of the model is the logits.

    Raises:
        CheckpointError, DataError, GraphError, SpaceError: One of the three cannot be loaded, or they do not fit.
    """
    chosen = choose_weights(checkpoint, weights, data, head, output)
    dataset = chosen.dataset
    classified = dataset.test if images is None else dataset.test.first(images)
    return Loaded(build_network(model, chosen, calibration, output=output), chosen, dataset, classified)


def build_network(
    model: str,
    chosen: ChosenWeights,
    calibration: int | None = None,
    images: Images | None = None,
    output: str | None = None,
) -> Network:
    """Builds a model for the images that belong to the parameters, and checks that all fit, before any work is done.

    Arguments and errors are those of `load_network`; `images` are the training images that calibration ones are taken
    from, None is all of them.
    """
    dataset = chosen.dataset
    train = dataset.train if images is None else images
    available = len(train)
    if available < 2:
        raise DataError(f"'{dataset.name}' has fewer than two training images; calibration needs at least 2.")
    count = min(calibration or CALIBRATION_IMAGES, available)
    if calibration is not None and calibration > available:
        warnings.warn(
            f"'{dataset.name}' has {available} training images; calibration uses these, not {calibration}",
            GhnqWarning,
            stacklevel=2,
        )
    module = load_model(model, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    calibration_images = dataset.normalise(train.balanced(count, CALIBRATION_SEED).pixels)
    network = Network(module, chosen.source, dataset, calibration_images, output)
    if isinstance(chosen.source, StoredWeights):
        chosen.source.check_module(module)
    outputs = network.graph.num_outputs
    check_outputs(outputs, dataset)
    if outputs != dataset.num_classes and chosen.head is not None:
        raise DataError(
            f"'{model}' has {outputs} outputs, '{dataset.name}' has {dataset.num_classes} classes: the head is solved "
            f"for exactly these; make the model with {dataset.num_classes} outputs"
        )
    if outputs > dataset.num_classes:
        warnings.warn(
            f"'{model}' has {outputs} outputs, '{dataset.name}' has {dataset.num_classes} classes: an image whose "
            "largest logit is none of these counts as wrong",
            GhnqWarning,
            stacklevel=2,
        )
    return network
