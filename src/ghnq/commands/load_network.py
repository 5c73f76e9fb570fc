"""What the commands on one model share: the model, its predicted parameters, and its images."""

from __future__ import annotations

from dataclasses import dataclass

from ghnq.data import ImageDataset, Images
from ghnq.errors import DataError
from ghnq.hypernet import GHN
from ghnq.models import load_model
from ghnq.prediction import (
    CALIBRATION_IMAGES,
    Network,
    PredictedWeights,
    check_dataset,
    dataset_for,
    warn_about_other_images,
)

CALIBRATION_SEED = 0


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network, its hypernetwork, its data set, and the test images that were asked for."""

    network: Network
    ghn: GHN
    dataset: ImageDataset
    images: Images


def load_network(
    model: str, *, checkpoint: str, data: str | None, images: int | None = None, calibration: int | None = None
) -> Loaded:
    """Loads the hypernetwork and the images, and builds the model for these images.

    Args:
        images: How many test images; None is all.
        calibration: How many training images for calibration; None is `CALIBRATION_IMAGES`, or as many as there are.

    Raises:
        CheckpointError, DataError, GraphError, SpaceError: One of the three cannot be loaded, or they do not fit.
    """
    ghn = GHN.from_pretrained(checkpoint)
    dataset = dataset_for(ghn, data)
    check_dataset(ghn, dataset)
    warn_about_other_images(ghn, dataset)
    if calibration is None:
        if len(dataset.train) < 2:
            raise DataError(f"'{dataset.name}' has fewer than two training images; calibration needs at least 2.")
        calibration = min(CALIBRATION_IMAGES, len(dataset.train))
    module = load_model(model, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    chosen = dataset.test if images is None else dataset.test.first(images)
    network = Network(module, PredictedWeights(ghn), dataset, dataset.calibration(calibration, CALIBRATION_SEED))
    return Loaded(network, ghn, dataset, chosen)
