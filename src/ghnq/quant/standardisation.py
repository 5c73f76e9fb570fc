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

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghnq.errors import GhnqWarning, NotFiniteError
from ghnq.quant.data_flow.recording import record
from ghnq.quant.data_flow.unnormalised import find_unnormalised_convolutions
from ghnq.torch_compat import ConvNd, remove_forward_hook

NAME = "standardisation"
"""The name under which a layer holds its norm."""
_MARK = "_ghnq_predicted"
_SAMPLES = 64
_LEAST_VARIANCE = 1e-12
_NORMS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


@torch.no_grad()
def unnormalised_layers(network: nn.Module, images_BCHW: Tensor) -> list[str]:
    """Returns the names of the convolutions that run once and whose output meets no norm, in module order.

    An output meets a norm if it reaches one, through whatever functions, before another convolution or linear layer.
    The network runs once on the images, which may live on `meta`.
    """
    return list(find_unnormalised_convolutions(record(network, images_BCHW)))


def attach_norms(network: nn.Module, names: Sequence[str], *, running_statistics: bool = True) -> None:
    """Gives these layers a batch norm without scale and shift, applied to their output; in place.

    running_statistics: False makes the norms use the batch's statistics always and keep none, as in training.
    """
    for name in names:
        layer = network.get_submodule(name)
        assert isinstance(layer, ConvNd)
        norm = next(norm for kind, norm in _NORMS.items() if isinstance(layer, kind))
        made = norm(
            layer.out_channels,
            affine=False,
            track_running_stats=running_statistics,
            device=layer.weight.device,
            dtype=layer.weight.dtype,
        )
        layer.add_module(NAME, made.train(layer.training))
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


@torch.no_grad()
def check_norms(network: nn.Module) -> None:
    """Checks the calibrated norms of `attach_norms`; channels that are constant on the images are only centred.

    A constant channel has no variance to divide by: it would be amplified without bound on other images.

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
        dead = variance <= _LEAST_VARIANCE * (mean.square() + 1)
        if bool(dead.any()):
            constant[name] = int(dead.sum())
            variance[dead] = 1.0
    if constant:
        listed = ", ".join(f"'{name}' ({count})" for name, count in constant.items())
        warnings.warn(
            f"channels that are constant on the calibration images are centred, not standardised: {listed}",
            GhnqWarning,
            stacklevel=3,
        )


def mark_predicted(network: nn.Module) -> nn.Module:
    """Notes on a network that its weights are predicted, for `has_predicted_weights`; returns the network."""
    setattr(network, _MARK, _fingerprint(network))
    return network


def has_predicted_weights(network: nn.Module) -> bool:
    """Returns whether the weights are those that `mark_predicted` saw, in this module or a copy of it."""
    mark = getattr(network, _MARK, None)
    return mark is not None and mark == _fingerprint(network)


@torch.no_grad()
def _fingerprint(network: nn.Module) -> tuple[float, ...]:
    """Sums over some values of each parameter, in float64: any training step changes them, and 25 M cost nothing."""
    return tuple(float(p.flatten()[:: max(1, p.numel() // _SAMPLES)].double().sum()) for p in network.parameters())
