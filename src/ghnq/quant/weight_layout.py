"""Where the output channels of a layer's weight are: in dimension 0, but in dimension 1 for transposed convolutions.

A transposed convolution of G groups has a weight [I, O / G, ...], whose first I / G rows belong to the first group. The
formats of files have one scale for each index of one dimension, so its scales are [O / G]: output channels of the same
index in their groups share one.

Dimensions: O output channels, I input channels, G groups.
"""

from __future__ import annotations

from torch import Tensor, nn

TRANSPOSED: tuple[type[nn.Module], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def is_transposed(layer: nn.Module) -> bool:
    """Returns whether a layer is a transposed convolution."""
    return isinstance(layer, TRANSPOSED)


def output_channels(layer: nn.Module) -> int:
    """Returns the number of output channels of a convolution or linear layer."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # type: ignore[return-value]


def outputs_first(layer: nn.Module, weight: Tensor) -> Tensor:
    """Returns the weight of a layer with the dimension of its scales in front: a view; its own inverse."""
    return weight.transpose(0, 1) if is_transposed(layer) else weight


def groups_sharing_scales(layer: nn.Module) -> int:
    """Returns how many output channels share one scale: the groups of a transposed convolution, else 1."""
    return int(layer.groups) if is_transposed(layer) else 1  # type: ignore[arg-type]


def for_outputs(layer: nn.Module, scales: Tensor) -> Tensor:
    """Returns the scale of every output channel, [O], of scales that may be shared; [] as it is."""
    groups = groups_sharing_scales(layer)
    return scales.repeat(groups) if scales.dim() and groups > 1 else scales


def gain_of_weights(layer: nn.Module, gain_O: Tensor) -> Tensor:
    """Returns factors of output channels, [O], as they multiply the weight of `outputs_first`: [O], or one factor for
    each of its first two dimensions, with as many dimensions as the weight, where groups share scales.
    """
    groups = groups_sharing_scales(layer)
    if groups == 1:
        return gain_O
    weight = layer.weight
    assert isinstance(weight, Tensor)
    by_channel = gain_O.reshape(groups, -1).t().repeat_interleave(weight.shape[0] // groups, dim=1)
    return by_channel.reshape(*by_channel.shape, *[1] * (weight.dim() - 2))
