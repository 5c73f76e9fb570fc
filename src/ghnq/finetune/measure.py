"""Accuracy of a network at a scheme, as it is deployed: what `ghnq score` reports and `ghnq export` writes."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ghnq.data import ImageDataset, Images
from ghnq.prediction import Network, count_correct
from ghnq.quant import QuantScheme
from ghnq.torch_threads import one_torch_thread


def accuracy(network: nn.Module, dataset: ImageDataset, images: Images) -> float:
    """Returns the accuracy of a network in eval mode, percent."""
    with one_torch_thread():
        return 100 * count_correct(network, dataset, images).correct / len(images)


def accuracies(network: Network, images: Images, schemes: Iterable[QuantScheme]) -> dict[str, float]:
    """Returns the accuracy at each scheme, percent, by the scheme's text."""
    with one_torch_thread():
        return {str(scheme): accuracy(network.quantized(scheme), network.dataset, images) for scheme in schemes}
