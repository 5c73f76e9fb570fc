"""Fake quantization of the networks of a training step: weights and the inputs of layers.

Protocol `deploy` quantizes the folded weight. Its symmetric per-channel scales are multiplied by the gain of the batch
norm when that is folded, so quantizing before or after folding is the same, and nothing has to be folded here. For
other schemes the weight itself is quantized. Ranges are those of the batch, where deployment has those of calibration
images; for the range estimator `mse` they are approximated (fast_ranges.py). Gradients use the straight-through
estimator (GHN-QAT, arXiv 2309.13773). Alternatively, uniform noise of one quantization step is added instead of
rounding.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ghnq.hypernet.model import Parameters
from ghnq.quant.affine import along_channels, fake_quantize, integer_range
from ghnq.quant.dynamic_ranges import weight_qparams
from ghnq.quant.ranges import in_memory_order
from ghnq.quant.scheme import QuantScheme
from ghnq.torch_compat import ConvNd
from ghnq.training.networks import fast_ranges

Noise = torch.Generator | None
"""None: rounding; a generator: noise that is drawn from it."""
Layers = dict[str, nn.Module]


def quantizable_layers(module: nn.Module) -> Layers:
    """Returns the convolutions and linear layers by name, which are what a scheme quantizes."""
    return {name: child for name, child in module.named_modules() if isinstance(child, ConvNd | nn.Linear)}


def fake_quantize_weights(parameters: Parameters, layers: Layers, scheme: QuantScheme, noise: Noise) -> Parameters:
    """Returns the parameters with every weight fake-quantized, or with noise of one step; differentiable."""
    quantized = dict(parameters)
    for name in layers:
        bits = scheme.bits_for(name).weight
        key = f"{name}.weight"
        if bits is None or key not in quantized:
            continue
        weight = quantized[key]
        approximate = scheme.weight_range == "mse" and scheme.folding_commutes and bits <= fast_ranges.MAX_BITS
        if approximate:
            scale = fast_ranges.weight_scale(weight, bits)
            zero_point = torch.zeros_like(scale)
        else:
            scale, zero_point = weight_qparams(weight.detach(), bits, scheme)
        if noise is None:
            quantized[key] = fake_quantize(weight, scale, zero_point, *integer_range(bits, scheme.weight_symmetric))
        else:
            quantized[key] = _add_noise(weight, along_channels(scale, weight), noise)
    return quantized


@contextmanager
def fake_quantize_inputs(layers: Layers, scheme: QuantScheme, noise: Noise) -> Iterator[None]:
    """Inside the block the input of every layer is fake-quantized, or gets noise of one step."""
    with ExitStack() as hooks:
        for name, layer in layers.items():
            bits = scheme.bits_for(name).activation
            if bits is not None:
                approximate = scheme.activation_range == "mse" and bits <= fast_ranges.MAX_BITS
                handle = layer.register_forward_pre_hook(_InputQuantizer(bits, noise, approximate))
                hooks.callback(handle.remove)
        yield


class _InputQuantizer:
    """A forward pre-hook that fake-quantizes a layer's first input."""

    def __init__(self, bits: int, noise: Noise, approximate: bool = False) -> None:
        self.bits, self.noise, self.approximate = bits, noise, approximate

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        levels = 2**self.bits - 1
        if self.noise is None and not self.approximate:
            return (fake_quantize_min_max(x, levels), *inputs[1:])
        values = x.detach()
        if self.approximate:
            scale, zero_point = fast_ranges.activation_qparams(in_memory_order(values), self.bits)
        else:
            scale, zero_point = _min_max_qparams(values, levels)
        if self.noise is None:
            return (fake_quantize(x, scale, zero_point, 0, levels), *inputs[1:])
        return (_add_noise(x, scale, self.noise), *inputs[1:])


def _min_max_qparams(x: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Returns scale and zero point, both [], of the range of x, extended to zero."""
    low, high = in_memory_order(x).aminmax()
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / levels
    scale = torch.where(scale >= torch.finfo(x.dtype).tiny, scale, torch.ones_like(scale))
    return scale, (-low / scale).round_()


def _add_noise(x: Tensor, scale: Tensor, noise: torch.Generator) -> Tensor:
    """Adds uniform noise between minus and plus half a quantization step."""
    return x + (torch.rand(x.shape, generator=noise, dtype=x.dtype, device=x.device) - 0.5) * scale


def fake_quantize_min_max(x: Tensor, levels: int) -> Tensor:
    """Fake-quantizes x, of any shape, with its own range, extended to zero; the gradient passes straight through.

    Args:
        levels: The largest integer, 2^bits - 1.
    """
    return torch.as_tensor(_FakeQuantizeMinMax.apply(x, levels))  # type: ignore[no-untyped-call]


class _FakeQuantizeMinMax(torch.autograd.Function):
    """`quant.dynamic_ranges.fake_quantize_activation` in four passes over the values in the order of memory.

    The range is that of the values, so the gradient is 1 everywhere. No value rounds below 0, since -low / scale rounds
    to the zero point; a tie may round above the largest integer. `torch.fake_quantize_*` takes ten times as long, and
    multiplies by 1 / scale instead of dividing.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        scale, zero_point = _min_max_qparams(x, levels)
        integers = torch.div(x, scale).round_()
        # `clamp` with tensors as bounds takes longer than everything else here.
        return torch.minimum(integers, levels - zero_point, out=integers).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
