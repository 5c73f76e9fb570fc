"""Batch norm folded into the layer before it, which gives the weight that a device really holds.

    W' = W * g      b' = beta + (b - mean) * g      g = gamma / sqrt(variance + eps)        (Jacob et al. 2018, Eq. 14)

Legend: O output channels.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ghnq.errors import SchemeError, nearest
from ghnq.quant.affine import along_channels
from ghnq.quant.data_flow import observe_data_flow
from ghnq.quant.data_flow.norm_pairs import is_foldable
from ghnq.quant.standardisation import NAME, detach_norm
from ghnq.torch_compat import BatchNorm

Pairs = Iterable[tuple[str, str]]


def fold_batch_norm(module: nn.Module, *, images: Tensor | None = None, pairs: Pairs | None = None) -> nn.Module:
    """Returns a copy in eval mode with the batch norms folded into the layers before them.

    Args:
        images: [B, C, H, W]; the network runs on them once to see which batch norm follows which layer.
        pairs: (layer name, norm name), where you know better; give either images or pairs.

    A folded norm becomes nn.Identity and its layer gets a bias; the module that came is left as it was. Norms that do
    not follow exactly one layer that runs once stay.

    Raises:
        SchemeError: a name of `pairs` is unknown, its modules cannot be folded, or a norm has no running statistics.
    """
    if (images is None) == (pairs is None):
        raise SchemeError("fold_batch_norm needs either images, to find the pairs itself, or pairs")
    network = copy.deepcopy(module).eval()
    if pairs is None:
        assert images is not None
        pairs = observe_data_flow(network, images).norm_pairs
    pairs = list(pairs)
    _check_pairs(network, pairs)
    fold_pairs(network, pairs)
    return network


@torch.no_grad()
def fold_pairs(network: nn.Module, pairs: Pairs) -> None:
    """Folds the given (layer, norm) pairs in place: for callers that own the network."""
    for layer_name, norm_name in pairs:
        layer, norm = network.get_submodule(layer_name), network.get_submodule(norm_name)
        gain = fold_gain(norm, layer_name).double()
        weight, bias, mean = layer.weight, layer.bias, norm.running_mean
        assert isinstance(weight, Tensor)
        assert isinstance(mean, Tensor)
        shift = -mean.double() if bias is None else bias.double() - mean.double()  # type: ignore[operator]
        folded = shift * gain + (norm.bias.double() if isinstance(norm.bias, Tensor) else 0)
        layer.weight = nn.Parameter((weight.double() * along_channels(gain, weight)).to(weight.dtype))
        layer.bias = nn.Parameter(folded.to(weight.dtype))
        if norm_name == f"{layer_name}.{NAME}":
            detach_norm(layer)
        else:
            replace_module(network, norm, nn.Identity())


def fold_gain(norm: nn.Module, layer_name: str = "") -> Tensor:
    """The factor gamma / sqrt(variance + eps) of a batch norm in eval mode, [O].

    Raises:
        SchemeError: the norm has no running statistics.
    """
    assert isinstance(norm, BatchNorm)
    if norm.running_var is None:
        raise SchemeError(
            f"the batch norm after {layer_name!r} keeps no running statistics, so there is nothing to fold: "
            "estimate them from calibration images first (estimate_batch_norm)"
        )
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    return (gain if norm.weight is None else gain * norm.weight.double()).to(norm.running_var.dtype)


def replace_module(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts `new` in place of `old` under every name it goes by, in the same mode."""
    new.training = old.training
    for name in [name for name, module in network.named_modules(remove_duplicate=False) if module is old]:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, new)


def _check_pairs(network: nn.Module, pairs: Pairs) -> None:
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
