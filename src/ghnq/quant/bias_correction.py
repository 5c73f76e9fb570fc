"""Bias correction: what quantization adds to the mean of an output channel is taken off its bias.

    b' = b + E[y_float] - E[y_quantized]        (Nagel et al. 2019, arXiv 1906.04721, section 4.2, Eq. 15)

with the means taken over calibration images, layer after layer, so that each layer is corrected for inputs that come
from corrected layers (appendix D).

Dimensions: B images, O output channels.
"""

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ghnq.quant.eval_mode import eval_mode
from ghnq.quant.quantized_layers import QuantLayer

VALUES = 2**21
"""Input values that always go through the network at once; 512 images of 3 x 32 x 32 are three quarters of it."""


def correct_bias(quantized: nn.Module, reference: nn.Module, images: Tensor, *, batch_size: int = 256) -> nn.Module:
    """Returns a copy of a quantized network whose channels have, on the images, the means of the reference's.

    Args:
        quantized: as `ghnq.quantize` gives it; layers without a bias get one.
        reference: the float network with the same layer names, its norms folded where those of `quantized` are.
        images: [B, C, H, W], normalised. They run as one batch; beyond VALUES, an even selection of at least
            `batch_size` of them does, so that memory stays bounded.

    Layers that run more than once, or not at all, keep their bias: no single bias is right for all of their runs.
    """
    network = copy.deepcopy(quantized).eval()
    correct_in_place(network, reference, images, batch_size)
    return network


@torch.no_grad()
def correct_in_place(network: nn.Module, reference: nn.Module, images: Tensor, batch_size: int) -> None:
    """`correct_bias` for callers that own the network."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, QuantLayer)}
    if not layers:
        return
    batch = _selection(images, batch_size)
    wanted: dict[str, list[Tensor]] = {name: [] for name in layers}
    _run(reference, batch, {name: _collecting(means) for name, means in wanted.items()})
    _run(network, batch, {name: _correcting(means[0]) for name, means in wanted.items() if len(means) == 1})


def channel_means(output: Tensor, layer: nn.Module) -> Tensor:
    """Means of a layer's output [B, O, ...] (or [B, ..., O] of a linear layer) over all but its channels, [O]."""
    if isinstance(layer, nn.Linear):
        return output.flatten(0, -2).mean(dim=0, dtype=torch.float64)
    # Image by image first: a sum in float64 over all of it would make every value a double, at twenty times the cost.
    image_means = output.mean(dim=tuple(range(2, output.dim())))
    return image_means.mean(dim=0, dtype=torch.float64)


def _selection(images: Tensor, batch_size: int) -> Tensor:
    count = max(batch_size, VALUES // max(1, images[0].numel()))
    return images[:: math.ceil(len(images) / count)]


Hook = Callable[[nn.Module, Any, Tensor], Tensor | None]


def _collecting(means: list[Tensor]) -> Hook:
    def hook(layer: nn.Module, args: Any, output: Tensor) -> None:
        means.append(channel_means(output, layer))

    return hook


def _correcting(wanted: Tensor) -> Hook:
    """Corrects the layer while the images run and hands the corrected output on: one pass corrects all layers."""

    def hook(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        width = 1 if isinstance(layer, nn.Linear) else output.dim() - 1  # of the channels' own and later dimensions
        assert isinstance(layer, QuantLayer)
        before = output.new_zeros(wanted.shape) if layer.bias is None else layer.bias.clone()
        layer.set_bias((before.double() + wanted - channel_means(output, layer)).to(output.dtype))
        assert layer.bias is not None
        return output.add_((layer.bias - before).reshape(-1, *[1] * (width - 1)))

    return hook


def _run(network: nn.Module, batch: Tensor, hooks: dict[str, Hook]) -> None:
    with eval_mode(network), ExitStack() as stack:
        for name, hook in hooks.items():
            stack.callback(network.get_submodule(name).register_forward_hook(hook).remove)
        network(batch)
