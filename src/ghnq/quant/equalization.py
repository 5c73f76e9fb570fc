"""Cross-layer equalization: each channel between two layers gets weights of the same magnitude in both layers.

    s_i = sqrt(r1_i r2_i) / r2_i,   W1_i / s_i,   b1_i / s_i,   W2_i s_i

(Nagel et al. 2019, arXiv 1906.04721, Eq. 11.) r1_i is the largest magnitude of the weights of output channel i of the
first layer, with its norm folded in; r2_i is that of input channel i of the second layer. Pairs of layers are equalized
one after the other, repeatedly, because they may share a layer, as in a convolution, a depthwise one, a convolution.

Dimensions: B images, C channels between two layers, H height, W width, G groups, O output channels, I input channels of
a group, K positions of a kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghnq.network_outputs import named_tensors
from ghnq.quant.affine import along_channels
from ghnq.quant.data_flow import ChannelRelation, DataFlow
from ghnq.quant.entry import as_network, observe_plain_layers, take_network
from ghnq.quant.folding import fold_gain
from ghnq.torch_compat import BatchNorm

MAX_ITERATIONS = 30
"""Passes over all pairs of layers, at most."""

CONVERGED = 1e-4
"""Largest |log s| of a pass after which it ends."""

TOLERANCE = 1e-3
"""Largest difference of the network's outputs, relative to their largest magnitude, that is attributed to rounding."""


@torch.no_grad()
def equalize(module: nn.Module, images: Tensor) -> nn.Module:
    """Returns a copy in eval mode that computes the same, with weights that are equalized across layers.

    Args:
        module: The network.
        images: [B, C, H, W], at least two. The network runs on two of them to find out which layers can be equalized,
            and again to check that its outputs are the same. If they are not, the copy is not equalized.
    """
    network = take_network(module, "equalize")
    images = as_network(network, images)
    return equalize_by_data_flow(network, images, observe_plain_layers(network, images[:2]))


@torch.no_grad()
def equalize_by_data_flow(network: nn.Module, images: Tensor, data_flow: DataFlow) -> nn.Module:
    """Does what `equalize` does, for a network in eval mode whose data flow is known."""
    new = copy.deepcopy(network)
    equalize_in_place(new, data_flow.channel_relations, dict(data_flow.norm_pairs))
    return new if _outputs_agree(network(images[:2]), new(images[:2])) else copy.deepcopy(network)


def equalize_in_place(
    network: nn.Module, relations: Sequence[ChannelRelation], norm_of: dict[str, str]
) -> list[Tensor]:
    """Equalizes related layers, in place.

    Args:
        network: The network.
        relations: The pairs of layers.
        norm_of: Name of a layer -> name of the norm that can be folded into it.

    Returns:
        The factors s [C] of each relation.
    """
    weights = {name: _folded_weight(network, name, norm_of) for r in relations for name in (r.first, r.second)}
    factors = [torch.ones_like(weights[r.first].flatten(1)[:, 0]) for r in relations]
    for _ in range(MAX_ITERATIONS):
        largest_change = 0.0
        for relation, total_C in zip(relations, factors, strict=True):
            first, second = weights[relation.first], weights[relation.second]
            groups = _groups(network.get_submodule(relation.second))
            s_C = equalizing_factor(output_magnitudes(first), input_magnitudes(second, groups))
            weights[relation.first] = first / along_channels(s_C, first)
            weights[relation.second] = _scale_inputs(second, s_C, groups)
            total_C *= s_C
            largest_change = max(largest_change, float(s_C.log().abs().max()))
        if largest_change < CONVERGED:
            break
    for relation, total_C in zip(relations, factors, strict=True):
        _apply(network, relation, total_C)
    return factors


def equalizing_factor(first_C: Tensor, second_C: Tensor) -> Tensor:
    """Returns s = sqrt(first second) / second, [C]; 1 if a channel is zero in either layer."""
    s_C = (first_C / second_C).sqrt()
    valid = (first_C > 0) & (second_C > 0) & s_C.isfinite() & (s_C > 0)
    return torch.where(valid, s_C, torch.ones_like(s_C))


def output_magnitudes(weight: Tensor) -> Tensor:
    """Returns the largest magnitude in each output channel of a weight [O, I, ...], [O]."""
    return weight.flatten(1).abs().amax(dim=1)


def input_magnitudes(weight: Tensor, groups: int) -> Tensor:
    """Returns the largest magnitude in each input channel of a weight [O, I, ...], [G * I]."""
    weight_GOIK = weight.reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
    return weight_GOIK.abs().amax(dim=(1, 3)).flatten()


def _scale_inputs(weight: Tensor, s_C: Tensor, groups: int) -> Tensor:
    """Multiplies each input channel of a weight [O, I, ...] by its factor."""
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return (by_group * s_C.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))).reshape(weight.shape)


def _folded_weight(network: nn.Module, name: str, norm_of: dict[str, str]) -> Tensor:
    """Returns the weight of a layer after folding, which is what will be quantized."""
    layer = network.get_submodule(name)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if name not in norm_of:
        return weight.clone()
    return weight * along_channels(fold_gain(network.get_submodule(norm_of[name]), name), weight)


def _apply(network: nn.Module, relation: ChannelRelation, s_C: Tensor) -> None:
    first, second = network.get_submodule(relation.first), network.get_submodule(relation.second)
    scaled = first if relation.norm is None else network.get_submodule(relation.norm)
    if isinstance(scaled, BatchNorm):
        # A norm would undo a scaling of its input, so its own scale and shift are divided.
        weight_C = torch.ones_like(s_C) if scaled.weight is None else scaled.weight
        scaled.weight = nn.Parameter(weight_C / s_C)
        scaled.bias = nn.Parameter(torch.zeros_like(s_C) if scaled.bias is None else scaled.bias / s_C)
        scaled.affine = True
    else:
        assert isinstance(scaled.weight, Tensor)
        scaled.weight = nn.Parameter(scaled.weight / along_channels(s_C, scaled.weight))
        if isinstance(scaled.bias, Tensor):
            scaled.bias = nn.Parameter(scaled.bias / s_C)
    assert isinstance(second.weight, Tensor)
    second.weight = nn.Parameter(_scale_inputs(second.weight, s_C, _groups(second)))


def _groups(layer: nn.Module) -> int:
    return 1 if isinstance(layer, nn.Linear) else layer.groups  # type: ignore[return-value]


def _outputs_agree(before: object, after: object) -> bool:
    for old, new in zip(named_tensors(before).values(), named_tensors(after).values(), strict=True):
        if not torch.equal(old, new):
            limit = TOLERANCE * old.abs().max()
            if not bool((old - new).abs().max() <= limit):
                return False
    return True
