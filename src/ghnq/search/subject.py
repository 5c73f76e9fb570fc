"""One candidate while it is measured: its network, and the images that decide.

Everything here is a function of the candidate, the images and the budget, and of no other candidate: the figures are
the same in every process and in every order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ghnq.data import ImageDataset, Images
from ghnq.errors import DataError
from ghnq.prediction import CALIBRATION_IMAGES, CALIBRATION_SEED, Network, WeightSource
from ghnq.prediction.held_out import hold_out
from ghnq.quant import QuantScheme
from ghnq.search.sizes import Sizes, sizes_of

MIN_CALIBRATION = 64
"""Training images for norms and ranges, at least, where a budget has few images."""


@dataclass(frozen=True, order=True)
class Budget:
    """What a measurement of one candidate may use.

    Attributes:
        images: Held-out images that are classified; as many training images, from MIN_CALIBRATION to
            CALIBRATION_IMAGES, calibrate the network.
        seconds: Of fine-tuning, counted in work (`ghnq.search.short_finetuning`); 0 where there is none.
    """

    images: int
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Bench:
    """What is the same for all candidates.

    Attributes:
        source: Where parameters come from.
        dataset: The images that they are for.
        training: The same without the images that are held out; its training split calibrates and trains.
        measured: The images that networks are measured on.
        seed: Of everything random.
        output: Which of several tensors that a network returns is the logits (`ghnq.network_outputs`).
    """

    source: WeightSource
    dataset: ImageDataset
    training: ImageDataset
    measured: Images
    seed: int = 0
    output: str | None = None

    @classmethod
    def of(cls, source: WeightSource, dataset: ImageDataset, seed: int = 0, output: str | None = None) -> Bench:
        """Returns the bench that measures on held-out training images (`ghnq.prediction.held_out`).

        Raises:
            DataError: There are too few training images.
        """
        rest, held_out = hold_out(dataset)
        if held_out is None:
            raise DataError(
                f"'{dataset.name}' has {len(dataset.train)} training images, too few to hold some out; ranking needs "
                "at least 10, and never looks at the test images"
            )
        return cls(source, dataset, rest, held_out, seed, output)

    def on_test(self) -> Bench:
        """Returns the bench that measures on the test images, after everything is chosen."""
        return replace(self, training=self.dataset, measured=self.dataset.test)

    def calibration(self, images: int) -> Tensor:
        """Returns the training images that calibrate a network measured on so many images, [B, C, H, W]."""
        return self._calibration[: max(images, MIN_CALIBRATION)]

    @cached_property
    def _calibration(self) -> Tensor:
        count = min(CALIBRATION_IMAGES, len(self.training.train))
        return self.training.calibration(count, CALIBRATION_SEED)  # any part of it is balanced

    @cached_property
    def _ordered(self) -> Images:
        return self.measured.first(len(self.measured))  # as above

    def subject(self, module: nn.Module, scheme: QuantScheme, budget: Budget) -> Subject:
        """Returns a network to measure at a scheme within a budget."""
        network = Network(module, self.source, self.dataset, self.calibration(budget.images), self.output)
        count = min(max(budget.images, 1), len(self.measured))
        return Subject(self, network, scheme, budget, self._ordered.take(torch.arange(count)))


@dataclass(frozen=True, eq=False)
class Subject:
    """A candidate at a scheme within a budget.

    Attributes:
        bench: What is the same for all.
        network: Calibrated on the images of the budget.
        scheme: What it is quantized to.
        budget: What may be used.
        images: The held-out images that it is measured on.
    """

    bench: Bench
    network: Network
    scheme: QuantScheme
    budget: Budget
    images: Images

    @cached_property
    def sizes(self) -> Sizes:
        """What the network costs."""
        return sizes_of(self.network.graph, self.scheme)

    @cached_property
    def normalised(self) -> Tensor:
        """The held-out images as the network gets them, [B, C, H, W]."""
        return self.network.dataset.normalise(self.images.pixels)

    def generator(self) -> torch.Generator:
        """Returns a fresh generator of the seed."""
        return torch.Generator().manual_seed(self.bench.seed)
