"""Networks of a training step run as they will be deployed: weights and input activations on their grids.

What is quantized is what `deploy` quantizes, the folded weight: its symmetric per-channel grid scales along with the
gain of the batch norm, so quantizing before or after folding is the same, and nothing has to be folded. For other
schemes the weight itself is quantized. Ranges are those of the batch at hand, where deployment has those of
calibration images; where the scheme asks for `mse`, they are found roughly (fast_ranges.py). Gradients pass straight
through (GHN-QAT, arXiv 2309.13773); with noise the grid is replaced by uniform noise one step wide, the other way to be
robust.
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
from ghnq.training.networks import fast_ranges as rough_ranges

Noise = torch.Generator | None
"""None rounds; a generator adds noise, drawn from it."""
Layers = dict[str, nn.Module]


def layers_of(module: nn.Module) -> Layers:
    """The convolutions and linear layers by name: what a scheme quantizes."""
    return {name: child for name, child in module.named_modules() if isinstance(child, ConvNd | nn.Linear)}


def on_grid(parameters: Parameters, layers: Layers, scheme: QuantScheme, noise: Noise) -> Parameters:
    """The parameters with every weight on its grid, or with noise of one step; differentiable."""
    found = dict(parameters)
    for name in layers:
        bits = scheme.bits_for(name).weight
        key = f"{name}.weight"
        if bits is None or key not in found:
            continue
        weight = found[key]
        rough = scheme.weight_range == "mse" and scheme.folding_commutes and bits <= rough_ranges.MOST_BITS
        if rough:
            step = rough_ranges.weight_scale(weight, bits)
            zero = torch.zeros_like(step)
        else:
            step, zero = weight_qparams(weight.detach(), bits, scheme)
        if noise is None:
            found[key] = fake_quantize(weight, step, zero, *integer_range(bits, scheme.weight_symmetric))
        else:
            found[key] = _disturbed(weight, along_channels(step, weight), noise)
    return found


@contextmanager
def activations_on_grid(layers: Layers, scheme: QuantScheme, noise: Noise) -> Iterator[None]:
    """Inside the block the input of every layer is put on its grid before the layer sees it."""
    with ExitStack() as hooks:
        for name, layer in layers.items():
            bits = scheme.bits_for(name).activation
            if bits is not None:
                rough = scheme.activation_range == "mse" and bits <= rough_ranges.MOST_BITS
                handle = layer.register_forward_pre_hook(_Grid(bits, noise, rough))
                hooks.callback(handle.remove)
        yield


class _Grid:
    """A hook that quantizes a layer's first input."""

    def __init__(self, bits: int, noise: Noise, rough: bool = False) -> None:
        self.bits, self.noise, self.rough = bits, noise, rough

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        levels = 2**self.bits - 1
        if self.noise is None and not self.rough:
            return (_round(x, levels), *inputs[1:])
        seen = x.detach()
        step, zero = (
            rough_ranges.activation_grid(in_memory_order(seen), self.bits) if self.rough else _range(seen, levels)
        )
        if self.noise is None:
            return (fake_quantize(x, step, zero, 0, levels), *inputs[1:])
        return (_disturbed(x, step, self.noise), *inputs[1:])


def _range(x: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Step and zero point of the values at hand, zero included."""
    low, high = in_memory_order(x).aminmax()
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = (high - low) / levels
    step = torch.where(step >= torch.finfo(x.dtype).tiny, step, torch.ones_like(step))
    return step, (-low / step).round_()


def _disturbed(x: Tensor, step: Tensor, noise: torch.Generator) -> Tensor:
    """x with uniform noise from minus to plus half a step."""
    return x + (torch.rand(x.shape, generator=noise, dtype=x.dtype, device=x.device) - 0.5) * step


def _round(x: Tensor, levels: int) -> Tensor:
    return torch.as_tensor(_Round.apply(x, levels))  # type: ignore[no-untyped-call]


class _Round(torch.autograd.Function):
    """`quant.dynamic.fake_quantize_activation` in four passes over the values in the order of memory.

    The range is that of the values themselves, so the gradient is 1 everywhere. Nothing falls below the grid, since
    -low / step rounds to the zero point; above it a tie may fall by one step. `torch.fake_quantize_*` takes ten
    times as long, and multiplies by 1 / step instead of dividing.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        step, zero_point = _range(x, levels)
        steps = torch.div(x, step).round_()
        # Not clamp: with bounds that are tensors it takes longer than all the rest.
        return torch.minimum(steps, levels - zero_point, out=steps).mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
