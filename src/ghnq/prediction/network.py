"""One network, from its architecture to its quantized simulation: used by evaluation, analysis and export.

Dimensions: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ghnq.data import ImageDataset, Images
from ghnq.errors import DataError, NotFiniteError
from ghnq.graph import ArchGraph, trace
from ghnq.network_outputs import take_output
from ghnq.prediction.accuracy import Count, count_correct
from ghnq.prediction.dataset_fit import check_outputs
from ghnq.prediction.weights import WeightSource
from ghnq.quant import Prepared, QuantScheme, prepare

CALIBRATION_IMAGES = 512
"""How many training images networks are calibrated with, unless another number is asked for."""
CALIBRATION_SEED = 0
"""Which ones, in commands on one network."""

_FLOAT32 = QuantScheme.parse("float32")


@dataclass(frozen=True, eq=False)
class Network:
    """An architecture, the source of its parameters, and the images it is calibrated with.

    Attributes:
        module: The architecture; it may be on `meta`. It is never changed.
        weights: Where the parameters come from.
        dataset: The images that the network classifies.
        calibration: float32 [B, C, H, W], normalised training images of the data set.
        output: Which of several tensors that the module returns is the logits (`ghnq.network_outputs`); networks that
            are made here return it alone.

    Raises:
        DataError: The parameters are not meant for such images.
    """

    module: nn.Module
    weights: WeightSource
    dataset: ImageDataset
    calibration: Tensor
    output: str | None = None

    def __post_init__(self) -> None:
        self.weights.check_dataset(self.dataset)

    @cached_property
    def graph(self) -> ArchGraph:
        """The traced architecture.

        Raises:
            GraphError: The module cannot be traced, or it is not clear which of its outputs is the logits.
        """
        return trace(
            self.module, self.dataset.input_shape, output=self.output, num_classes=self.dataset.num_classes
        )  # fmt: skip

    def prepared(self, scheme: QuantScheme) -> Prepared:
        """Returns the network in float, with batch-norm statistics estimated from the calibration images.

        Where parameters do not depend on the scheme, this is done once for all schemes.

        Raises:
            DataError: The network does not return one logit for each class.
            NotFiniteError: A parameter is NaN or infinite.
        """
        return self._prepare(scheme) if self.weights.depends_on_scheme else self._prepared_once

    def quantized(self, scheme: QuantScheme) -> nn.Module:
        """Returns the simulated quantized network.

        Raises:
            DataError, NotFiniteError: As `prepared`.
            SchemeError: The scheme cannot be applied to this network.
        """
        return self.prepared(scheme).quantize(scheme)

    def count_correct(self, scheme: QuantScheme, images: Images) -> Count:
        """Returns how many images the simulated quantized network classifies correctly: none if it is not finite.

        Raises:
            DataError, SchemeError: As `quantized`.
        """
        try:
            quantized = self.quantized(scheme)
        except NotFiniteError:  # Parameters are NaN or infinite, or calibration images overflow.
            return Count(correct=0, nonfinite=len(images))
        return count_correct(quantized, self.dataset, images)

    @cached_property
    def _prepared_once(self) -> Prepared:
        return self._prepare(_FLOAT32)

    def _prepare(self, scheme: QuantScheme) -> Prepared:
        network = self.weights.network(self.module, self.graph, scheme)
        prepared = prepare(
            network,
            self.calibration,
            standardise=self.weights.standardise,
            keep_statistics=self.weights.keep_statistics,
            trained_through=self.weights.trained_through,
        )
        take_output(
            prepared.network, prepared.images[:2], output=self.output, num_classes=self.dataset.num_classes
        )  # fmt: skip
        self._check_logits(prepared)
        return prepared

    @torch.no_grad()
    def _check_logits(self, prepared: Prepared) -> None:
        logits = prepared.network(prepared.images[:2])
        if logits.dim() != 2:
            raise DataError(
                f"For two images the model returns a tensor of shape {list(logits.shape)}; it must return logits "
                "[2, classes]."
            )
        check_outputs(logits.shape[1], self.dataset)
