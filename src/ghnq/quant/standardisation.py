"""Standardisation of the outputs of convolutions in networks without norms.

The scale of predicted weights is approximate, and without norms the error grows from layer to layer. So the output of
every convolution that reaches no norm is brought to mean 0 and variance 1, channel by channel, on calibration images
(data-dependent initialisation, Krähenbühl et al. 2016, arXiv 1511.06856, Eq. 4): a batch norm without scale and shift
is attached to the layer, calibrated like any other, and folded into weight and bias.

A convolution whose output is the input of another convolution or linear layer, and of nothing else, is not
standardised: the two are one linear map, and the output of the second one is.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghnq.errors import GhnqWarning, NotFiniteError
from ghnq.quant.data_flow.norm_pairs import NormPair
from ghnq.quant.data_flow.recording import record
from ghnq.quant.data_flow.unnormalised import find_unnormalised_convolutions
from ghnq.torch_compat import ConvNd, remove_forward_hook

NAME = "standardisation"
"""Name of the attached norm among the children of its layer."""

_MARK, _SOLVED = "_ghnq_predicted", "_ghnq_solved"
_VALUES_PER_PARAMETER = 64  # of the fingerprint, about
_MIN_RELATIVE_VARIANCE = 1e-12
_NORM_CLASSES = {
    **dict.fromkeys((nn.Conv1d, nn.ConvTranspose1d), nn.BatchNorm1d),
    **dict.fromkeys((nn.Conv2d, nn.ConvTranspose2d), nn.BatchNorm2d),
    **dict.fromkeys((nn.Conv3d, nn.ConvTranspose3d), nn.BatchNorm3d),
}


@torch.no_grad()
def unnormalised_layers(network: nn.Module, images_BCHW: Tensor) -> list[str]:
    """Runs a network once on images, which may be on the meta device, and returns its unnormalised convolutions.

    See `ghnq.quant.data_flow.unnormalised`.
    """
    return list(find_unnormalised_convolutions(record(network, images_BCHW)))


def attach_norms(network: nn.Module, names: Sequence[str], *, running_statistics: bool = True) -> None:
    """Attaches batch norms without scale and shift to the outputs of layers, in place.

    Args:
        network: The network.
        names: Names of the layers, convolutions.
        running_statistics: Whether the norms have running statistics. Without, they use those of the batch in eval
            mode as well.
    """
    for name in names:
        layer = network.get_submodule(name)
        assert isinstance(layer, ConvNd)
        norm_class = next(norm for conv, norm in _NORM_CLASSES.items() if isinstance(layer, conv))
        norm = norm_class(
            layer.out_channels,
            affine=False,
            track_running_stats=running_statistics,
            device=layer.weight.device,
            dtype=layer.weight.dtype,
        )
        layer.add_module(NAME, norm.train(layer.training))
        layer.register_forward_hook(standardise)


def detach_norm(layer: nn.Module) -> None:
    """Removes the norm that `attach_norms` attached to a layer, after it was folded."""
    remove_forward_hook(layer, standardise)
    delattr(layer, NAME)


def standardise(layer: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor:
    """Applies the attached norm; the forward hook of a standardised layer."""
    return torch.as_tensor(layer.get_submodule(NAME)(output))


def pairs_of(names: Sequence[str]) -> tuple[NormPair, ...]:
    """Returns the names of layers and of their attached norms, for folding."""
    return tuple((name, f"{name}.{NAME}") for name in names)


@torch.no_grad()
def check_norms(network: nn.Module) -> None:
    """Checks the calibrated norms of `attach_norms` and warns about channels that are constant on the images.

    The variance of a constant channel is set to 1, so that it is centred and not scaled: dividing by its deviation
    would amplify it without bound on other images.

    Raises:
        NotFiniteError: The output of a layer is NaN or infinite; the message names the layer.
    """
    constant: dict[str, int] = {}
    for name, layer in network.named_modules():
        norm = dict(layer.named_children()).get(NAME)
        if norm is None:
            continue
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        if not bool((mean.isfinite() & variance.isfinite()).all()):
            raise NotFiniteError(
                f"layer '{name}': its output on the calibration images is NaN or infinite, so that it cannot be "
                "standardised; check the calibration images, or take another checkpoint"
            )
        is_constant = variance <= _MIN_RELATIVE_VARIANCE * (mean.square() + 1)
        if bool(is_constant.any()):
            constant[name] = int(is_constant.sum())
            variance[is_constant] = 1.0
    if constant:
        listed = ", ".join(f"'{name}' ({count})" for name, count in constant.items())
        warnings.warn(
            f"channels that are constant on the calibration images are centred, not standardised: {listed}",
            GhnqWarning,
            stacklevel=3,
        )


def mark_predicted(network: nn.Module) -> nn.Module:
    """Marks the weights of a network as predicted, for `has_predicted_weights`; returns the network."""
    setattr(network, _MARK, _fingerprint(network))
    return network


def unmark_predicted(network: nn.Module) -> None:
    """Removes the marks of `mark_predicted` and of `mark_solved`, if there are any."""
    for module in network.modules():
        for mark in (_MARK, _SOLVED):
            if hasattr(module, mark):
                delattr(module, mark)


def mark_solved(layer: nn.Module) -> None:
    """Marks a layer whose weights were solved for its inputs, so that its outputs are not standardised."""
    setattr(layer, _SOLVED, True)


def without_solved(network: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the layers that `mark_solved` has not marked, nor the layers they are copies of."""
    return tuple(name for name in names if not hasattr(network.get_submodule(name), _SOLVED))


def has_predicted_weights(network: nn.Module) -> bool:
    """Returns whether `mark_predicted` marked this module, or the one it is a copy of, and the weights are the same."""
    mark = getattr(network, _MARK, None)
    return mark is not None and mark == _fingerprint(network)


@torch.no_grad()
def _fingerprint(network: nn.Module) -> tuple[float, ...]:
    """Returns a sum over a sample of each parameter's values; a training step changes it."""
    parameters = (p.flatten() for p in network.parameters())
    return tuple(float(p[:: max(1, p.numel() // _VALUES_PER_PARAMETER)].double().sum()) for p in parameters)
