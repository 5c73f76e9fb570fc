"""Folds batch norms into the layers before them, which gives the weights that are deployed.

    W' = W * g      b' = beta + (b - mean) * g      g = gamma / sqrt(variance + eps)

(Jacob et al. 2018, arXiv 1712.05877, Eq. 14.)

Dimensions: B images, C channels, H height, W width, O output channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ghnq.errors import SchemeError, nearest
from ghnq.quant.affine import along_channels
from ghnq.quant.data_flow.norm_pairs import NormPair, is_foldable
from ghnq.quant.entry import as_network, observe_plain_layers, take_network
from ghnq.quant.replacement import replace_module
from ghnq.quant.standardisation import NAME, detach_norm
from ghnq.quant.weight_layout import gain_of_weights, outputs_first
from ghnq.torch_compat import BatchNorm


def fold_batch_norm(
    module: nn.Module, *, images: Tensor | None = None, pairs: Iterable[NormPair] | None = None
) -> nn.Module:
    """Returns a copy in eval mode with the batch norms folded into the layers before them.

    A folded norm becomes nn.Identity and its layer gets a bias; the module itself is not changed. A norm is folded if
    it and its layer run once and it is the only consumer of the layer's output.

    Args:
        module: The network.
        images: [B, C, H, W]; the network runs on them once to find out which batch norm follows which layer.
        pairs: (layer name, norm name), instead of images.

    Raises:
        SchemeError: The module cannot be taken (`ghnq.quant.entry`), neither or both of images and pairs are given, a
            name of `pairs` is unknown, its modules cannot be folded, or a norm has no running statistics.
    """
    if (images is None) == (pairs is None):
        raise SchemeError("fold_batch_norm needs either images, from which it finds the pairs, or pairs")
    network = take_network(module, "fold_batch_norm")
    if pairs is None:
        assert images is not None
        pairs = observe_plain_layers(network, as_network(network, images)).norm_pairs
    pairs = list(pairs)
    _check_pairs(network, pairs)
    fold_pairs(network, pairs)
    return network


@torch.no_grad()
def fold_pairs(network: nn.Module, pairs: Iterable[NormPair]) -> None:
    """Folds the given (layer, norm) pairs, in place."""
    for layer_name, norm_name in pairs:
        layer, norm = network.get_submodule(layer_name), network.get_submodule(norm_name)
        gain_O = fold_gain(norm, layer_name).double()
        weight, bias_O, mean_O = layer.weight, layer.bias, norm.running_mean
        assert isinstance(weight, Tensor)
        assert isinstance(mean_O, Tensor)
        centred_O = -mean_O.double() if bias_O is None else bias_O.double() - mean_O.double()  # type: ignore[operator]
        folded_bias_O = centred_O * gain_O + (norm.bias.double() if isinstance(norm.bias, Tensor) else 0)
        factor = along_channels(gain_of_weights(layer, gain_O), weight)
        folded = outputs_first(layer, outputs_first(layer, weight.double()) * factor)
        layer.weight = nn.Parameter(folded.to(weight.dtype).contiguous())
        layer.bias = nn.Parameter(folded_bias_O.to(weight.dtype))
        if norm_name == f"{layer_name}.{NAME}":
            detach_norm(layer)
        else:
            replace_module(network, norm, nn.Identity())


def fold_gain(norm: nn.Module, layer_name: str = "") -> Tensor:
    """Returns the factor gamma / sqrt(variance + eps) of a batch norm in eval mode, [O].

    Raises:
        SchemeError: The norm has no running statistics; the message names the layer.
    """
    assert isinstance(norm, BatchNorm)
    if norm.running_var is None:
        raise SchemeError(
            f"the batch norm after {layer_name!r} keeps no running statistics, so it cannot be folded: "
            "estimate them from calibration images first (estimate_batch_norm)"
        )
    gain_O = (norm.running_var.double() + norm.eps).rsqrt()
    return (gain_O if norm.weight is None else gain_O * norm.weight.double()).to(norm.running_var.dtype)


def _check_pairs(network: nn.Module, pairs: Iterable[NormPair]) -> None:
    names = [name for name, _ in network.named_modules()]
    for layer_name, norm_name in pairs:
        for name in (layer_name, norm_name):
            if name not in names:
                raise SchemeError(f"no module {name!r} to fold{nearest(name, names)}")
        if not is_foldable(network.get_submodule(layer_name), network.get_submodule(norm_name)):
            raise SchemeError(
                f"{norm_name!r} cannot be folded into {layer_name!r}: expected a batch norm after a convolution or "
                "linear layer with as many output channels"
            )
