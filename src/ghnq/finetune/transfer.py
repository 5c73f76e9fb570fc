"""Networks for classes that a hypernetwork was not trained on: a predicted body, and a head solved in closed form.

The features of predicted networks transfer to other images; only the classification layer belongs to the classes that
the hypernetwork knows. So the body is predicted, calibrated and standardised on the new images, and the head is solved
by ridge regression on the features of training images (`ghnq.finetune.ridge`). No gradient is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ghnq.data import ImageDataset, Images
from ghnq.data.images import check_dataset_type
from ghnq.errors import DataError, GhnqError, NotFiniteError
from ghnq.finetune.head import Head, features_of, find_head
from ghnq.finetune.ridge import LinearClassifier, solve_classifier
from ghnq.graph import ArchGraph, trace
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize_traced
from ghnq.hypernet.model import check_ghn
from ghnq.module_check import unwrapped
from ghnq.network_outputs import returning_logits, take_output
from ghnq.prediction import CALIBRATION_IMAGES, are_own_images
from ghnq.prediction.held_out import held_out_count, hold_out
from ghnq.prediction.inference import BATCH_SIZE
from ghnq.quant import QuantScheme, TrainableNetwork, prepare
from ghnq.quant.standardisation import mark_solved
from ghnq.torch_threads import one_torch_thread

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
        output: Which of several outputs of a network is the logits (`ghnq.network_outputs`).
    """

    ghn: GHN
    dataset: ImageDataset
    images: int = MAX_IMAGES
    output: str | None = None
    standardise: bool = True
    keep_statistics: bool = False
    trained_through: str | None = None

    @property
    def depends_on_scheme(self) -> bool:
        """Whether the hypernetwork was trained with `condition`."""
        return self.ghn.config.condition

    @property
    def description(self) -> str:
        """What was done, for metadata."""
        available = len(self.dataset.train)
        count = min(self.images, available - held_out_count(available))
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
            GraphError: The classification layer cannot be found, or has another number of outputs.
        NotFiniteError: A parameter or a feature is NaN or infinite.
        """
        network = initialize_traced(module, graph, self.ghn, scheme)
        solve_head(network, self.dataset, standardise=True, images=self.images, output=self.output)
        return network


def has_other_size(ghn: GHN, dataset: ImageDataset) -> bool:
    """Returns whether a data set has another number of classes, or another shape of images, than the hypernetwork."""
    other_shape = ghn.task is not None and tuple(ghn.task.image_shape) != dataset.input_shape
    return ghn.config.num_classes != dataset.num_classes or other_shape


def needs_transfer(ghn: GHN, dataset: ImageDataset) -> bool:
    """Returns whether a data set has other classes than the hypernetwork, as far as that can be known.

    As many classes of other images are other classes: a predicted head would name them at random.
    """
    return has_other_size(ghn, dataset) or not are_own_images(ghn, dataset)


def transfer(
    module: nn.Module,
    ghn: GHN,
    dataset: ImageDataset,
    *,
    scheme: str | QuantScheme = "float32",
    head: Literal["solved", "predicted"] = "solved",
    output: str | None = None,
) -> nn.Module:
    """Returns a copy of the module for the classes of a data set: body predicted, norms calibrated, head solved.

    The result is an ordinary network in eval mode, with the names of the module. Convolutions that meet no norm are
    scaled, and centred if they have a bias.

    Args:
        module: The network, with as many outputs as there are classes; it may be on `meta`, and is not changed.
        ghn: The hypernetwork, trained on any images.
        dataset: Images of any size and any classes.
        scheme: The precision that the network will be quantized to, for a hypernetwork trained with `condition`.
        head: `predicted` leaves the head as it is predicted: for the classes that the hypernetwork was trained for.
        output: Which of several tensors that the module returns is the logits (`ghnq.network_outputs`); the result
            returns all of them, as the module does.

    Raises:
        GhnqError: There is no such head.
        GraphError: The module cannot be traced, or its classification layer cannot be found.
        DataError: The images cannot be used, or a predicted head is for another number of classes.
    """
    check_ghn(ghn, "transfer()")
    check_dataset_type(dataset, "transfer()")
    if head not in ("solved", "predicted"):
        raise GhnqError(f"there is no head '{head}'; it is solved or predicted")
    if head == "predicted" and ghn.config.num_classes != dataset.num_classes:
        raise DataError(
            f"the hypernetwork predicts heads for {ghn.config.num_classes} classes, but '{dataset.name}' has "
            f"{dataset.num_classes}; have it solved (head='solved')"
        )
    graph = trace(module, dataset.input_shape, output=output, num_classes=dataset.num_classes)
    network = initialize_traced(module, graph, ghn, QuantScheme.parse(scheme))
    prepared = prepare(network, _calibration(dataset), standardise=True)
    # Convolutions are standardised for good first: nothing after the head is solved may change the features.
    result = TrainableNetwork.of(prepared, _FLOAT32).float_network()
    if head == "solved":
        with returning_logits(result, prepared.images[:2], output=output, num_classes=dataset.num_classes):
            layer = find_head(result, prepared.images[:2])
            layer.replace(_solve(result, layer, dataset, MAX_IMAGES))
    return result


@torch.no_grad()
def solve_head(
    network: nn.Module,
    dataset: ImageDataset,
    *,
    standardise: bool,
    images: int = MAX_IMAGES,
    output: str | None = None,
) -> LinearClassifier:
    """Solves the head of a network whose norms are still to be calibrated, in place, and returns the classifier.

    Args:
        network: The float network. Its norms keep their statistics; the features are those it has once it is prepared.
        dataset: The images.
        standardise: Whether the network will be prepared with `standardise`. The head itself is marked, so that its
            outputs are not standardised.
        images: How many training images, at most.
        output: Which of several outputs is the logits (`ghnq.network_outputs`).

    Raises:
        GraphError: The classification layer cannot be found, or has another number of outputs.
    """
    calibration = _calibration(dataset)
    prepared = prepare(network, calibration, standardise=False)
    take_output(prepared.network, prepared.images[:2], output=output, num_classes=dataset.num_classes)
    name = find_head(prepared.network, prepared.images[:2]).name
    own = Head.of(unwrapped(network, say=False), name)
    mark_solved(own.layer)
    if standardise:
        prepared = prepare(network, calibration, standardise=True)
    classifier = _solve(prepared.network, Head.of(prepared.network, name), dataset, images)
    own.replace(classifier)
    return classifier


def _solve(network: nn.Module, head: Head, dataset: ImageDataset, count: int) -> LinearClassifier:
    """Returns the classifier that takes the place of a head; `network` is calibrated, in eval mode."""
    chosen = _head_images(dataset, count)
    with one_torch_thread():  # whatever the machine, the same bits
        features_BF = features_of(network, head, _batches(dataset, chosen))
        if not bool(features_BF.isfinite().all()):
            raise NotFiniteError(f"the input of '{head.name}' is NaN or infinite for some training images")
        return solve_classifier(features_BF, chosen.labels, dataset.num_classes, bias=head.layer.bias is not None)


def _calibration(dataset: ImageDataset) -> Tensor:
    return dataset.calibration(min(CALIBRATION_IMAGES, len(dataset.train)), SEED)


def _head_images(dataset: ImageDataset, count: int) -> Images:
    """Returns training images in random order, without those that are held out."""
    train = hold_out(dataset)[0].train
    chosen = train.balanced(min(count, len(train)), SEED)
    # The order of a balanced sample ends with the frequent classes alone: it is no order to take a part from.
    return chosen.take(torch.randperm(len(chosen), generator=torch.Generator().manual_seed(SEED)))


def _batches(dataset: ImageDataset, images: Images) -> Iterator[Tensor]:
    for start in range(0, len(images), BATCH_SIZE):
        yield dataset.normalise(images.pixels[start : start + BATCH_SIZE])
