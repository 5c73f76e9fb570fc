"""Cross-layer equalization: channels that two layers share get weights of the same size in both.

    s_i = sqrt(r1_i r2_i) / r2_i,   W1_i / s_i,   b1_i / s_i,   W2_i s_i        (Nagel et al. 2019, 1906.04721, Eq. 11)

r1_i: largest |weight| of output channel i of the first layer, its norm folded in; r2_i: the same of input channel i of
the second. Pairs that share a layer (convolution, depthwise, convolution) are treated in turns until nothing moves.

Dimensions: G groups, O output channels, I input channels of a group, K positions of a kernel.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghnq.quant.affine import along_channels
from ghnq.quant.data_flow import ChannelRelation, DataFlow, observe_data_flow
from ghnq.quant.folding import fold_gain
from ghnq.torch_compat import BatchNorm, tree_leaves

SWEEPS = 30
STILL = 1e-4
"""Logarithm of a factor below which a channel counts as equalized."""

TOLERANCE = 1e-3
"""Largest difference of the outputs, beside their largest value, that is taken for rounding."""


@torch.no_grad()
def equalize(module: nn.Module, images: Tensor) -> nn.Module:
    """Returns a copy in eval mode that computes the same, its weights equalized across layers.

    images: [B, C, H, W], B > 1; the network runs on the first two to see which layers are related, and once more to
    prove that it still computes the same. If it does not, the copy is returned as it came.
    """
    network = copy.deepcopy(module).eval()
    return equalized(network, images, observe_data_flow(network, images[:2]))


@torch.no_grad()
def equalized(network: nn.Module, images: Tensor, data_flow: DataFlow) -> nn.Module:
    """`equalize` for callers that know the flow; the network that comes must be in eval mode and is left untouched."""
    new = copy.deepcopy(network)
    equalize_in_place(new, data_flow.channel_relations, dict(data_flow.norm_pairs))
    return new if _same(network(images[:2]), new(images[:2])) else copy.deepcopy(network)


def equalize_in_place(
    network: nn.Module, relations: Sequence[ChannelRelation], norm_of: dict[str, str]
) -> list[Tensor]:
    """Equalizes related layers and returns the factors s [channels] of each relation; `norm_of`: layer -> its norm."""
    weights = {name: _folded(network, name, norm_of) for r in relations for name in (r.first, r.second)}
    factors = [torch.ones_like(weights[r.first].flatten(1)[:, 0]) for r in relations]
    for _ in range(SWEEPS):
        moved = 0.0
        for relation, total in zip(relations, factors, strict=True):
            first, second = weights[relation.first], weights[relation.second]
            groups = _groups(network.get_submodule(relation.second))
            s = equalizing_factor(row_sizes(first), column_sizes(second, groups))
            weights[relation.first] = first / along_channels(s, first)
            weights[relation.second] = _scale_columns(second, s, groups)
            total *= s
            moved = max(moved, float(s.log().abs().max()))
        if moved < STILL:
            break
    for relation, total in zip(relations, factors, strict=True):
        _apply(network, relation, total)
    return factors


def equalizing_factor(first: Tensor, second: Tensor) -> Tensor:
    """s = sqrt(first second) / second, all [channels]; 1 where a channel is empty on either side."""
    s = (first / second).sqrt()
    return torch.where((first > 0) & (second > 0) & s.isfinite() & (s > 0), s, torch.ones_like(s))


def row_sizes(weight: Tensor) -> Tensor:
    """Largest magnitude in each output channel of [O, I, ...], [O]."""
    return weight.flatten(1).abs().amax(dim=1)


def column_sizes(weight: Tensor, groups: int) -> Tensor:
    """Largest magnitude in each input channel of [O, I, ...], [G * I]."""
    return weight.reshape(groups, -1, weight.shape[1], weight[0, 0].numel()).abs().amax(dim=(1, 3)).flatten()


def _scale_columns(weight: Tensor, s: Tensor, groups: int) -> Tensor:
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return (by_group * s.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))).reshape(weight.shape)


def _folded(network: nn.Module, name: str, norm_of: dict[str, str]) -> Tensor:
    """The weight as it will be after folding: that one is quantized."""
    layer = network.get_submodule(name)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if name not in norm_of:
        return weight.clone()
    return weight * along_channels(fold_gain(network.get_submodule(norm_of[name]), name), weight)


def _apply(network: nn.Module, relation: ChannelRelation, s: Tensor) -> None:
    first, second = network.get_submodule(relation.first), network.get_submodule(relation.second)
    written = first if relation.norm is None else network.get_submodule(relation.norm)
    if isinstance(written, BatchNorm):
        # A norm undoes what its input is scaled by, so its own scale and shift are divided.
        old_weight = torch.ones_like(s) if written.weight is None else written.weight
        written.weight = nn.Parameter(old_weight / s)
        written.bias = nn.Parameter(torch.zeros_like(s) if written.bias is None else written.bias / s)
        written.affine = True
    else:
        assert isinstance(written.weight, Tensor)
        written.weight = nn.Parameter(written.weight / along_channels(s, written.weight))
        if isinstance(written.bias, Tensor):
            written.bias = nn.Parameter(written.bias / s)
    assert isinstance(second.weight, Tensor)
    second.weight = nn.Parameter(_scale_columns(second.weight, s, _groups(second)))


def _groups(layer: nn.Module) -> int:
    return 1 if isinstance(layer, nn.Linear) else layer.groups  # type: ignore[return-value]


def _same(before: object, after: object) -> bool:
    for old, new in zip(tree_leaves(before), tree_leaves(after), strict=True):
        if isinstance(old, Tensor) and not torch.equal(old, new):
            limit = TOLERANCE * old.abs().max()
            if not bool((old - new).abs().max() <= limit):
                return False
    return True
