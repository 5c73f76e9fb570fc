"""The comparison of a file's runtime with its simulation: the same images through both.

The simulation is rebuilt from the file and sums in integers (`graph/integer_arithmetic.py`), so the only difference
that is left is rounding at ties.

Dimensions: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx

from ghnq.data import ImageDataset, Images
from ghnq.deploy.graph.finite import check_logits
from ghnq.deploy.graph.integer_arithmetic import in_integers
from ghnq.deploy.graph.quantize_ops import dequantize
from ghnq.deploy.graph.supported_ops import LAYERS, aten
from ghnq.deploy.metadata import Facts
from ghnq.errors import DataError, ExportError

BATCH_SIZE = 250

Run = Callable[[Tensor], Tensor]
"""Normalised images [B, C, H, W] -> logits [B, K]."""


@dataclass(frozen=True)
class Agreement:
    """How far one runtime agrees with the simulation.

    Attributes:
        agreement: The share of images for which both have the same class, 0 to 1.
        accuracy: The share of images that the runtime classifies correctly, 0 to 1.
        largest_difference: Of any logit of any image.
        largest_difference_steps: The same, in units of what one quantization step of one input of the last layer
            changes that logit at most (None where the last layer is not quantized).
    """

    agreement: float
    accuracy: float
    largest_difference: float
    largest_difference_steps: float | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """The simulation of a file, run on test images; runtimes are compared with it.

    Attributes:
        path: The file.
        facts: Its metadata.
        dataset: Where the images come from.
        images: The test images.
        logits: Of the simulation, [B, K].
        steps: `last_layer_steps` of the simulation, [K].
    """

    path: Path
    facts: Facts
    dataset: ImageDataset
    images: Images
    logits: Tensor
    steps: Tensor | None

    @classmethod
    def of(
        cls, path: Path, facts: Facts, simulation: fx.GraphModule, dataset: ImageDataset, images: int | None
    ) -> Comparison:
        """Runs the simulation on the test images, or on so many of them (a fixed, class-balanced subset).

        Raises:
            DataError: The images have another shape or more classes than the file, or are too few.
            ExportError: A logit is NaN or infinite.
        """
        check_shape(path, facts, dataset)
        chosen = dataset.test if images is None else dataset.test.first(images)
        logits = _run(path, "the simulation", in_integers(simulation), _batches(chosen, dataset, facts))
        _check_classes(path, logits, dataset)
        check_logits(path, "the simulation", logits)
        return cls(path, facts, dataset, chosen, logits, last_layer_steps(simulation))

    @property
    def accuracy(self) -> float:
        """The share of images that the simulation classifies correctly, 0 to 1."""
        return _share(self.logits.argmax(1) == self.images.labels)

    def first_batch(self) -> Tensor:
        """Returns the first of the batches [B, C, H, W] that runtimes get; all but the last have its size."""
        return next(_batches(self.images, self.dataset, self.facts))

    def with_runtime(self, name: str, run: Run) -> Agreement:
        """Runs a runtime on the same images in the same batches.

        Raises:
            ExportError: A logit is NaN or infinite; the message calls the runtime by its `name`.
        """
        logits = _run(self.path, name, run, _batches(self.images, self.dataset, self.facts))
        if logits.shape != self.logits.shape:
            raise ExportError(f"'{self.path}' is damaged: {name} has {logits.shape[1]} outputs, the simulation others")
        check_logits(self.path, name, logits)
        difference = (self.logits - logits).abs()
        return Agreement(
            agreement=_share(self.logits.argmax(1) == logits.argmax(1)),
            accuracy=_share(logits.argmax(1) == self.images.labels),
            largest_difference=difference.max().item(),
            largest_difference_steps=None if self.steps is None else (difference / self.steps).max().item(),
        )


def check_shape(path: Path, facts: Facts, dataset: ImageDataset) -> None:
    """Checks that a file takes images of the shape that the data set has.

    Raises:
        DataError: It takes others.
    """
    if dataset.input_shape != facts.input_shape:
        given, expected = ("x".join(map(str, shape)) for shape in (dataset.input_shape, facts.input_shape))
        raise DataError(f"'{path}' takes images of {expected}, '{dataset.name}' has {given}")


def last_layer_steps(simulation: fx.GraphModule) -> Tensor | None:
    """Returns how much one quantization step of one input of the last layer changes each logit at most, [K].

    That is the scale of the input times the largest weight. None where the last layer is not quantized, or where
    another operator than a mean or a reshape follows it.
    """
    node = simulation.graph.output_node().args[0]
    while isinstance(node, fx.Node) and node.target in (aten.reshape.default, aten.mean.dim):
        node = node.args[0]
    layers = [each for each in simulation.graph.nodes if each.target in LAYERS]
    if not layers or layers[-1] is not node or not isinstance(node, fx.Node):
        return None
    source, weight = node.all_input_nodes[:2]
    if source.target is not dequantize or weight.target is not dequantize:
        return None
    values = dequantize(*(_constant(simulation, each) for each in weight.all_input_nodes))
    steps: Tensor = _constant(simulation, source.all_input_nodes[1]) * values.abs().flatten(1).amax(1)
    steps[steps == 0] = torch.inf  # The logit of a class without weights does not change.
    return steps


def _constant(simulation: fx.GraphModule, node: fx.Node) -> Tensor:
    value: Tensor = getattr(simulation, str(node.target))
    return value


def _check_classes(path: Path, logits: Tensor, dataset: ImageDataset) -> None:
    if logits.shape[1] < dataset.num_classes:
        raise DataError(f"'{path}' has {logits.shape[1]} outputs, '{dataset.name}' {dataset.num_classes} classes")


def _batches(images: Images, dataset: ImageDataset, facts: Facts) -> Iterator[Tensor]:
    """Yields normalised images [B, C, H, W], in batches of one size but the last."""
    for pixels in torch.split(images.pixels, BATCH_SIZE):
        yield _normalise(pixels, dataset, facts)


def _normalise(pixels: Tensor, dataset: ImageDataset, facts: Facts) -> Tensor:
    """Normalises pixels as the metadata of the file say, or else as the data set does."""
    mean, std = facts.origin.mean, facts.origin.std
    if mean is None or std is None:
        return dataset.normalise(pixels)
    shift = 255 * torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
    scale = (1 / (255 * torch.tensor(std, dtype=torch.float32))).view(-1, 1, 1)
    return pixels.to(torch.float32).sub_(shift).mul_(scale)


@torch.no_grad()
def _run(path: Path, name: str, run: Run, batches: Iterator[Tensor]) -> Tensor:
    """Returns the logits [B, K] of all batches.

    Raises:
        ExportError: The file describes no network that can be run, or one with other results.
    """
    logits = []
    for batch in batches:
        try:
            result = run(batch)
        except Exception as error:
            # A damaged file may describe anything; torch and ONNX Runtime have no error class for what does not run.
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(f"'{path}' is damaged: {name} does not run ({first}); export it again") from error
        if result.ndim != 2 or len(result) != len(batch):
            shape = " x ".join(map(str, result.shape))
            raise ExportError(f"'{path}' is damaged: {name} returns {shape} numbers for {len(batch)} images")
        logits.append(result)
    return torch.cat(logits)


def _share(correct: Tensor) -> float:
    """Returns the share of True, 0 to 1."""
    return correct.double().mean().item()
