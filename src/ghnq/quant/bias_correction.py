"""Bias correction: what quantization adds to the mean of an output channel is subtracted from its bias.

    b' = b + E[y_float] - E[y_quantized]        (Nagel et al. 2019, arXiv 1906.04721, section 4.2, Eq. 15)

The means are over calibration images. Layers are corrected one after the other, so that the inputs of each layer come
from corrected layers (appendix D).

Dimensions: B images, C channels, H height, W width, O output channels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ghnq.quant.entry import as_network, take_network
from ghnq.quant.eval_mode import eval_mode
from ghnq.quant.quantizable import has_hooks
from ghnq.quant.quantized_layers import QuantLayer

MAX_INPUT_VALUES = 2**21
"""Values of the batch of images that the network runs on; 512 images of 3 x 32 x 32 have three quarters of it."""


def correct_bias(quantized: nn.Module, reference: nn.Module, images: Tensor, *, batch_size: int = 256) -> nn.Module:
    """Returns a copy of a quantized network whose channels have the means that they have in the float network.

    Layers that run more than once, or not at all, keep their bias: no bias is right for all of their runs.

    Args:
        quantized: The result of `ghnq.quantize`; layers without a bias get one.
        reference: The float network with the same layer names, with norms folded where those of `quantized` are.
        images: [B, C, H, W], normalised. They run as one batch; if they have more than MAX_INPUT_VALUES values, an
            even selection of at least `batch_size` of them does, so that memory is bounded.
        batch_size: See `images`.
    """
    network = copy.deepcopy(quantized).eval()
    correct_in_place(network, take_network(reference, "correct_bias"), as_network(network, images), batch_size)
    return network


@torch.no_grad()
def correct_in_place(network: nn.Module, reference: nn.Module, images: Tensor, batch_size: int) -> None:
    """Does what `correct_bias` does, in place."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, QuantLayer)}
    if not layers:
        return
    batch = select_images(images, batch_size)
    means_of: dict[str, list[Tensor]] = {name: [] for name in layers}
    _run(reference, batch, {name: _collect_means(means) for name, means in means_of.items()})
    _run(network, batch, {name: _correct_means(means[0]) for name, means in means_of.items() if len(means) == 1})


def channel_means(output: Tensor, layer: nn.Module) -> Tensor:
    """Returns the means [O] of a layer's output [B, O, ...], or [B, ..., O] of a linear layer, in float64."""
    if isinstance(layer, nn.Linear):
        return output.flatten(0, -2).mean(dim=0, dtype=torch.float64)
    # First over each image in its own dtype: a float64 mean over all values would convert each, at 20 times the cost.
    image_means = output.mean(dim=tuple(range(2, output.dim())))
    return image_means.mean(dim=0, dtype=torch.float64)


def select_images(images: Tensor, batch_size: int) -> Tensor:
    """Returns evenly spaced images, of all images [B, C, H, W] at most the number that `correct_bias` documents."""
    count = max(batch_size, MAX_INPUT_VALUES // max(1, images[0].numel()))
    return images[:: math.ceil(len(images) / count)]


Hook = Callable[[nn.Module, tuple[object, ...], Tensor], Tensor | None]


def _collect_means(means: list[Tensor]) -> Hook:
    def hook(layer: nn.Module, args: tuple[object, ...], output: Tensor) -> None:
        means.append(channel_means(output, layer))

    return hook


def _correct_means(target_O: Tensor) -> Hook:
    """Corrects the layer during the run and returns its corrected output, so that one run corrects all layers."""

    def hook(layer: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor:
        dims_after_channels = 0 if isinstance(layer, nn.Linear) else output.dim() - 2
        assert isinstance(layer, QuantLayer)
        before_O = output.new_zeros(target_O.shape) if layer.bias is None else layer.bias.clone()
        layer.set_bias((before_O.double() + target_O - channel_means(output, layer)).to(output.dtype))
        assert layer.bias is not None
        return output.add_((layer.bias - before_O).reshape(-1, *[1] * dims_after_channels))

    return hook


def _run(network: nn.Module, batch: Tensor, hooks: dict[str, Hook]) -> None:
    with eval_mode(network), ExitStack() as stack:
        for name, hook in hooks.items():
            layer = network.get_submodule(name)
            # What counts is the output of the layer, not what a hook of the user makes of it.
            stack.callback(layer.register_forward_hook(hook, prepend=has_hooks(layer)).remove)
        network(batch)
