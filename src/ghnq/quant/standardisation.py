"""Standardised convolutions: what takes the place of norms in a network that has none.

Predicted weights of a network without norms are of the right size only roughly, and the error grows from layer to
layer. So the output of every convolution that meets no norm is brought to mean 0 and variance 1, channel by channel, on
calibration images (data-dependent initialisation, Krähenbühl et al. 2016, arXiv 1511.06856, Eq. 4): a batch norm
without scale and shift is attached to the layer, calibrated like any other, and folded into weight and bias.

A convolution whose output goes straight into another convolution or linear layer is left as it is: the two are one
linear map, whose end is standardised.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghnq.quant.data_flow.recording import record
from ghnq.quant.data_flow.unnormalised import find_unnormalised_convolutions
from ghnq.torch_compat import ConvNd, remove_forward_hook

NAME = "standardisation"
"""The name under which a layer holds its norm."""
_NORMS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


@torch.no_grad()
def unnormalised_layers(network: nn.Module, images_BCHW: Tensor) -> list[str]:
    """Returns the names of the convolutions that run once and whose output meets no norm, in module order.

    An output meets a norm if it reaches one, through whatever functions, before another convolution or linear layer.
    The network runs once on the images, which may live on `meta`.
    """
    return list(find_unnormalised_convolutions(record(network, images_BCHW)))


def attach_norms(network: nn.Module, names: Sequence[str]) -> None:
    """Gives these layers a batch norm without scale and shift, applied to their output; in place.

    The norms use the statistics of the batch until they are calibrated.
    """
    for name in names:
        layer = network.get_submodule(name)
        assert isinstance(layer, ConvNd)
        norm = next(norm for kind, norm in _NORMS.items() if isinstance(layer, kind))
        layer.add_module(NAME, norm(layer.out_channels, affine=False, track_running_stats=False).train(layer.training))
        layer.register_forward_hook(standardise)


def detach_norm(layer: nn.Module) -> None:
    """Takes from a layer what `attach_norms` gave it, once that is folded."""
    remove_forward_hook(layer, standardise)
    delattr(layer, NAME)


def standardise(layer: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor:
    """The forward hook of a standardised layer."""
    return torch.as_tensor(layer.get_submodule(NAME)(output))


def pairs_of(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The (layer, norm) pairs to fold."""
    return tuple((name, f"{name}.{NAME}") for name in names)
