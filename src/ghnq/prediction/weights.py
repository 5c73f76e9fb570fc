"""Where the parameters of a network come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from ghnq.data import ImageDataset
from ghnq.graph import ArchGraph
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize_traced
from ghnq.prediction.dataset_fit import check_dataset
from ghnq.quant import QuantScheme


class WeightSource(Protocol):
    """A source of parameters: a hypernetwork that predicts them, or anything else that has them."""

    @property
    def depends_on_scheme(self) -> bool:
        """Whether the parameters are different for each scheme that the network will be quantized to."""

    @property
    def standardise(self) -> bool:
        """Whether outputs of convolutions without a norm are standardised on the calibration images (`prepare`)."""

    @property
    def keep_statistics(self) -> bool:
        """Whether batch norms keep the running statistics that the source gives them (`prepare`)."""

    @property
    def trained_through(self) -> str | None:
        """The scheme, as text, that the statistics of norms belong to (`prepare`); None where they are of no scheme."""

    def check_dataset(self, dataset: ImageDataset) -> None:
        """Checks that the parameters are meant for such images and classes.

        Raises:
            DataError: They are not.
        """

    def network(self, module: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> nn.Module:
        """Returns a copy of the module with parameters; the given module, which may be on `meta`, is left as it was.

        Args:
            graph: The traced module.
            scheme: What the network will be quantized to.
        """


@dataclass(frozen=True, eq=False)
class PredictedWeights:
    """Parameters that a hypernetwork predicts.

    Attributes:
        ghn: The hypernetwork.
        channels_last: Whether kernels are stored in channels last, which is faster on the CPU. The memory format may
            change the last bits of the logits.
    """

    ghn: GHN
    channels_last: bool = False

    @property
    def standardise(self) -> bool:
        """Always: predicted weights of layers without a norm are of the right size only roughly."""
        return True

    @property
    def keep_statistics(self) -> bool:
        """Never: nothing predicts statistics."""
        return False

    @property
    def trained_through(self) -> str | None:
        """None: nothing was trained."""
        return None

    @property
    def depends_on_scheme(self) -> bool:
        """Whether the hypernetwork was trained with `condition`."""
        return self.ghn.config.condition

    def check_dataset(self, dataset: ImageDataset) -> None:
        """Checks that the hypernetwork was trained for such images and as many classes.

        Raises:
            DataError: It was not.
        """
        check_dataset(self.ghn, dataset)

    def network(self, module: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> nn.Module:
        """Returns a copy of the module with predicted parameters, as `ghnq.initialize` does.

        Raises:
            GraphError: A parameter that is not predicted has no value, as the module is on `meta`.
        """
        return initialize_traced(module, graph, self.ghn, scheme, channels_last=self.channels_last)
