"""The options `--checkpoint` and `--weights`: where the parameters of a model come from, and its images."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ghnq.data import ImageDataset, resize_dataset
from ghnq.errors import DataError, GhnqError, GhnqWarning, nearest
from ghnq.evaluation.provenance import weights_hash
from ghnq.finetune.transfer import TransferredWeights, has_other_size, needs_transfer
from ghnq.hypernet import GHN
from ghnq.prediction import (
    PredictedWeights,
    StoredWeights,
    WeightSource,
    are_own_images,
    check_dataset,
    dataset_for,
    warn_about_other_images,
)
from ghnq.prediction.stored_weights import weights_file
from ghnq.quant import QuantScheme
from ghnq.recorded_names import checkpoint_name, file_name

DEFAULT_CHECKPOINT = "digits"
HEADS = ("predicted", "solved")


@dataclass(frozen=True, eq=False)
class ChosenWeights:
    """The source that the options name.

    Attributes:
        source: The parameters.
        dataset: The images of `--data`, or those that the source was made for.
        option: `checkpoint` or `weights`: the key in documents and metadata.
        name: What the user gave, for messages.
        ghn: The hypernetwork, if there is one.
    """

    source: WeightSource
    dataset: ImageDataset
    option: str
    name: str
    ghn: GHN | None = None

    @property
    def title(self) -> str:
        """Where the parameters come from, for titles of tables and figures."""
        if self.option == "weights":
            return f"weights of '{self.recorded_name}'"
        return f"parameters predicted by '{self.recorded_name}'" + ("" if self.head is None else ", head solved")

    @property
    def recorded_name(self) -> str:
        """The name in documents and files, without folders of this machine."""
        return checkpoint_name(self.name) if self.option == "checkpoint" else file_name(self.name)

    @property
    def head(self) -> str | None:
        """How the classification layer was solved; None where it was not."""
        return self.source.description if isinstance(self.source, TransferredWeights) else None

    @cached_property
    def sha256(self) -> str:
        """The hash of the hypernetwork, or of the file of weights."""
        if self.ghn is not None:
            return weights_hash(self.ghn)
        return hashlib.sha256(weights_file(Path(self.name)).read_bytes()).hexdigest()

    @property
    def document(self) -> dict[str, str]:
        """Keys and values for JSON documents: name, hash, and the head if it was solved."""
        about = {self.option: self.recorded_name, f"{self.option}_sha256": self.sha256}
        return about | ({} if self.head is None else {"head": self.head})


def choose_weights(
    checkpoint: str | None,
    weights: Path | None,
    data: str | None,
    head: str | None = None,
    output: str | None = None,
) -> ChosenWeights:
    """Loads the hypernetwork or the file of weights, and the images.

    Args:
        checkpoint: `--checkpoint`; None without the option, which is DEFAULT_CHECKPOINT unless there are weights.
        weights: `--weights`.
        data: `--data`; None takes the images that the hypernetwork or the weights were made for.
        head: `--head`; None is `predicted` for the images that the hypernetwork was trained on, `solved` for others.
        output: `--output`, for weights of which the head is solved.

    Raises:
        GhnqError: Two options contradict each other, or there is no such head.
        CheckpointError, DataError: The source or the images cannot be loaded, or do not fit each other.
    """
    check_head(head)
    if weights is None:
        name = checkpoint or DEFAULT_CHECKPOINT
        ghn = GHN.from_pretrained(name)
        dataset = dataset_for(ghn, data)
        chosen = ChosenWeights(_source(ghn, dataset, head, output), dataset, "checkpoint", name, ghn)
    else:
        if checkpoint is not None:
            raise GhnqError("--checkpoint predicts weights, --weights has them already; give one of the two")
        if head is not None:
            raise GhnqError("--head is for predicted weights; --weights has the head already: leave --head out")
        stored = StoredWeights.read(weights)
        chosen = ChosenWeights(stored, _as_made(stored, stored.images.load(data)), "weights", str(weights))
    chosen.source.check_dataset(chosen.dataset)
    if isinstance(chosen.source, TransferredWeights):
        warnings.warn(_about_transfer(chosen.source, chosen.name), GhnqWarning, stacklevel=2)
    elif chosen.ghn is not None:
        warn_about_other_images(chosen.ghn, chosen.dataset)
    elif isinstance(chosen.source, StoredWeights):
        chosen.source.images.warn_about_other(chosen.dataset)
    return chosen


def about_condition(ghn: GHN, scheme: QuantScheme) -> str | None:
    """Returns what is to be said where a hypernetwork does not know the scheme that it predicts for."""
    if scheme.is_float or ghn.config.condition:
        return None
    return f"the hypernetwork was trained without `condition`: it predicts the same for {scheme} as for float32"


def check_head(head: str | None) -> None:
    """Checks the value of `--head`.

    Raises:
        GhnqError: There is no such head.
    """
    if head is not None and head not in HEADS:
        raise GhnqError(f"there is no head '{head}'{nearest(head, HEADS)}; --head takes {' or '.join(HEADS)}")


def _source(
    ghn: GHN, dataset: ImageDataset, head: str | None, output: str | None
) -> PredictedWeights | TransferredWeights:
    """Returns the parameters with the head that is asked for."""
    if head == "predicted" and has_other_size(ghn, dataset):
        try:
            check_dataset(ghn, dataset)
        except DataError as error:
            raise DataError(f"--head predicted: {error} Without it, the head is solved for these images.") from error
    solved = needs_transfer(ghn, dataset) if head is None else head == "solved"
    return TransferredWeights(ghn, dataset, output=output) if solved else PredictedWeights(ghn)


def _about_transfer(source: TransferredWeights, name: str) -> str:
    ghn, task, dataset = source.ghn, source.ghn.task, source.dataset
    done = f"the body is predicted, {source.description}"
    if has_other_size(ghn, dataset):
        size = "" if task is None else f" of {'x'.join(map(str, task.image_shape))}"
        return (
            f"'{name}' was trained for {ghn.config.num_classes} classes on images{size}; '{dataset.name}' has "
            f"{dataset.num_classes} classes on images of {'x'.join(map(str, dataset.input_shape))}: {done}"
        )
    if are_own_images(ghn, dataset):
        return f"'{name}' on the images that it was trained on: {done}"
    return (
        f"'{dataset.name}' has as many classes as '{name}' was trained for, but other images: {done}. If the classes "
        "are the same, --head predicted predicts it as well"
    )


def _as_made(stored: StoredWeights, dataset: ImageDataset) -> ImageDataset:
    """Returns the images in the size that the weights were made with, if their hash says that they are the same."""
    digest = stored.metadata.get("data_sha256")
    square = re.fullmatch(r"(\d+),(\d+),\2", stored.metadata.get("input_shape", ""))
    if square is None or digest in (None, dataset.content_hash):
        return dataset
    channels, size = int(square[1]), int(square[2])
    if channels != dataset.input_shape[0] or dataset.input_shape[1:] == (size, size):
        return dataset
    resized = resize_dataset(dataset, size)
    return resized if resized.content_hash == digest else dataset
