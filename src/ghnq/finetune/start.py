"""What is done to the weights of a network before it is trained on.

A start takes the float network, with the layers whose outputs norms take in, and changes it in place. A new one needs a
line in `STARTS`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ghnq.torch_compat import BatchNorm, own_parameters

_LEAST_VARIANCE = 100.0
"""Outputs whose variance is less than this times the norm's epsilon, before or after, keep their scale."""

Pairs = Iterable[tuple[str, str]]
Start = Callable[[nn.Module, Pairs], None]


def identity(network: nn.Module, pairs: Pairs) -> None:
    """Leaves the weights as they are."""


@torch.no_grad()
def rescaled(network: nn.Module, pairs: Pairs) -> None:
    """Gives each filter before a batch norm the size that it would have at random, in place; outputs stay the same.

    A norm undoes the scale s of the filters before it, but the gradient of these is proportional to 1 / s, so that a
    step turns them by 1 / s^2 as much (van Laarhoven 2017, arXiv 1706.05350, section 2). Predicted filters may be a
    hundred times as large as random ones: then they hardly learn. They get the size of He et al. 2015 (arXiv
    1502.01852, Eq. 14, in the form for the backward pass), as `KaimingWeights` have on average.

    Args:
        network: Float, in eval mode.
        pairs: Names of layers, and of the norm that each feeds alone (`DataFlow.norm_pairs`).
    """
    users = Counter(id(parameter) for child in network.modules() for parameter in own_parameters(child).values())
    for name, norm_name in pairs:
        try:
            layer, norm = network.get_submodule(name), network.get_submodule(norm_name)
        except AttributeError:  # a norm that standardises, which is part of the layer by now
            continue
        weight, bias = layer.weight, layer.bias
        if not isinstance(norm, BatchNorm) or not isinstance(weight, Tensor) or users[id(weight)] > 1:
            continue
        if getattr(layer, "transposed", False) or not isinstance(norm.running_var, Tensor):
            continue
        assert isinstance(norm.running_mean, Tensor)
        variance_O = norm.running_var
        scale_O = _random_norm(weight) / weight.flatten(1).norm(dim=1)
        least_O = _LEAST_VARIANCE * norm.eps * scale_O.square().reciprocal().clamp(min=1)
        scale_O = torch.where(scale_O.isfinite() & (variance_O > least_O), scale_O, 1.0)
        weight.mul_(scale_O.view(-1, *[1] * (weight.dim() - 1)))
        if isinstance(bias, Tensor):
            bias.mul_(scale_O)
        norm.running_mean.mul_(scale_O)
        variance_O.copy_((variance_O + norm.eps) * scale_O.square() - norm.eps)


def _random_norm(weight_OI: Tensor) -> float:
    """Returns the root of the mean squared norm of random filters of that shape [O, I, ...]."""
    fan_out = weight_OI.numel() // weight_OI.shape[1]
    return math.sqrt(2 / fan_out * weight_OI[0].numel())


STARTS: Mapping[str, Start] = {"identity": identity, "rescaled": rescaled}
"""Starts by name."""
