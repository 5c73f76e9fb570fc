"""What the commands that study one model share: the model, its hypernetwork, its images."""

from __future__ import annotations

from ghnq.analysis.subject import Subject
from ghnq.errors import DataError
from ghnq.evaluation import CALIBRATION_IMAGES, dataset_for
from ghnq.hypernet import GHN
from ghnq.models import load_model


def load_subject(model: str, *, checkpoint: str, data: str | None, images: int | None) -> Subject:
    """Loads the hypernetwork, the images and the model (built for these images); errors as those three raise them."""
    ghn = GHN.from_pretrained(checkpoint)
    dataset = dataset_for(ghn, data)
    if len(dataset.train) < 2:
        raise DataError(f"'{dataset.name}' has fewer than two training images; calibration needs at least 2.")
    module = load_model(model, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    return Subject(
        module=module,
        ghn=ghn,
        dataset=dataset,
        images=dataset.test if images is None else dataset.test.first(images),
        calibration=dataset.calibration(min(CALIBRATION_IMAGES, len(dataset.train)), 0),
    )
