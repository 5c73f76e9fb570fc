"""Networks for classes that a hypernetwork was not trained on: a predicted body, and a head solved in closed form.

The features of predicted networks transfer to other images; only the classification layer belongs to the classes that
the hypernetwork knows. So the body is predicted, calibrated and standardised on the new images, and the head is solved
by ridge regression on the features of training images (`ghnq.finetune.ridge`). No gradient is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from ghnq.data import ImageDataset, Images
from ghnq.errors import DataError
from ghnq.finetune.head import features_of, find_head, replace_head
from ghnq.finetune.ridge import LinearClassifier, solve_classifier
from ghnq.graph import ArchGraph, trace
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize_traced
from ghnq.prediction import CALIBRATION_IMAGES
from ghnq.prediction.held_out import hold_out
from ghnq.prediction.inference import BATCH_SIZE
from ghnq.quant import QuantScheme, TrainableNetwork, prepare

MAX_IMAGES = 10_000
"""Training images that the head is solved with, at most."""
SEED = 0
_FLOAT32 = QuantScheme.parse("float32")


@dataclass(frozen=True, eq=False)
class TransferredWeights:
    """Predicted parameters with a solved head, as a source of weights.

    Attributes:
        ghn: The hypernetwork.
        dataset: The images that the head is solved on; those held out for validation are not used.
        images: How many, at most.
        solved: The last head that was solved, by the scheme it was solved for.
    """

    ghn: GHN
    dataset: ImageDataset
    images: int = MAX_IMAGES
    solved: dict[str, LinearClassifier] = field(default_factory=dict)
    standardise: bool = True
    keep_statistics: bool = False

    @property
    def depends_on_scheme(self) -> bool:
        """Whether the hypernetwork was trained with `condition`."""
        return self.ghn.config.condition

    @property
    def description(self) -> str:
        """What was done, for metadata."""
        count = len(_head_images(self.dataset, self.images))
        return f"head solved by ridge regression on {count} training images of '{self.dataset.name}'"

    def check_dataset(self, dataset: ImageDataset) -> None:
        """Checks that the images are those that the head is solved on.

        Raises:
            DataError: They are others.
        """
        if dataset.content_hash != self.dataset.content_hash:
            raise DataError(f"the head is solved for '{self.dataset.name}', and cannot classify '{dataset.name}'")

    def network(self, module: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> nn.Module:
        """Returns a copy of the module with a predicted body and a solved head.

        Raises:
            GraphError: The classification layer cannot be found.
        """
        network = initialize_traced(module, graph, self.ghn, scheme)
        count = min(CALIBRATION_IMAGES, len(self.dataset.train))
        prepared = prepare(network, self.dataset.calibration(count, SEED), standardise=True)
        head = find_head(prepared.network, prepared.images[:2])
        chosen = _head_images(self.dataset, self.images)
        features_BF = features_of(prepared.network, head, _batches(self.dataset, chosen))
        classifier = solve_classifier(features_BF, chosen.labels, self.dataset.num_classes)
        self.solved[str(scheme)] = classifier
        replace_head(network, head, classifier)
        return network


def needs_transfer(ghn: GHN, dataset: ImageDataset) -> bool:
    """Returns whether a data set has another number of classes, or another shape of images, than the hypernetwork."""
    other_shape = ghn.task is not None and tuple(ghn.task.image_shape) != dataset.input_shape
    return ghn.config.num_classes != dataset.num_classes or other_shape


def transfer(module: nn.Module, ghn: GHN, dataset: ImageDataset, *, scheme: str | QuantScheme = "float32") -> nn.Module:
    """Returns a copy of the module for the classes of a data set: body predicted, norms calibrated, head solved.

    The result is an ordinary network in eval mode, with the names of the module. Convolutions that meet no norm are
    scaled, and centred if they have a bias.

    Args:
        module: The network, with as many outputs as there are classes; it may be on `meta`, and is not changed.
        ghn: The hypernetwork, trained on any images.
        dataset: Images of any size and any classes.
        scheme: The precision that the network will be quantized to, for a hypernetwork trained with `condition`.

    Raises:
        GraphError: The module cannot be traced, or its classification layer cannot be found.
        DataError: The images cannot be used.
    """
    parsed = QuantScheme.parse(scheme)
    graph = trace(module, dataset.input_shape)
    network = TransferredWeights(ghn, dataset).network(module, graph, parsed)
    count = min(CALIBRATION_IMAGES, len(dataset.train))
    prepared = prepare(network, dataset.calibration(count, SEED), standardise=True)
    return TrainableNetwork.of(prepared, _FLOAT32).float_network()


def _head_images(dataset: ImageDataset, count: int) -> Images:
    """Returns training images in random order, without those that are held out."""
    train = hold_out(dataset)[0].train
    return train.balanced(min(count, len(train)), SEED)


def _batches(dataset: ImageDataset, images: Images) -> Iterator[Tensor]:
    for start in range(0, len(images), BATCH_SIZE):
        yield dataset.normalise(images.pixels[start : start + BATCH_SIZE])
