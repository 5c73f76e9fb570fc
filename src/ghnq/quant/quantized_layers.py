"""Convolution and linear layers that compute, in float, what an integer device computes.

Legend: O output channels.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from ghnq.errors import NotFiniteError
from ghnq.quant.affine import along_channels, encode, fake_quantize, integer_range, scale_zero_point
from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.dynamic_ranges import fake_quantize_activation, fake_quantize_weight, weight_qparams
from ghnq.quant.quantizable import quantizable_class
from ghnq.quant.ranges import ActivationObserver
from ghnq.quant.scheme import QuantScheme
from ghnq.quant.squant import squant

BIAS_LIMIT = 2**31 - 1
_BIAS_ROOM = 2**30  # Half of int32 stays free for what the accumulator adds to the bias.
_BIAS_FINE = 2**24  # Size of the integer bias where the weight gives no scale: as fine as float32.


class QuantLayer(nn.Module):
    """What the quantized layers share: a fake-quantized weight, and an input quantized before the layer computes.

    Buffers: `weight_scale` and `weight_zero_point` ([O] or []), `input_scale` and `input_zero_point` ([]), `bias_int`
    ([O], int32 at input_scale * weight_scale); the last three exist once the input range is fixed. `weight` and `bias`
    hold the real values of those integers. Before `fix_input_range` the input is quantized with the range of each
    batch itself.
    """

    bits: LayerBits
    scheme: QuantScheme
    weight: Tensor
    bias: Tensor | None
    weight_scale: Tensor
    weight_zero_point: Tensor
    input_scale: Tensor | None
    input_zero_point: Tensor | None
    bias_int: Tensor | None
    observer: ActivationObserver | None

    def forward(self, x: Tensor) -> Tensor:
        """Quantizes the input, then computes the float layer with the quantized weight."""
        return cast(Tensor, super().forward(self.quantize_input(x)))

    def quantize_input(self, x: Tensor) -> Tensor:
        """The input as the device sees it (or untouched, while an observer looks at it), same shape as x."""
        if self.observer is not None:
            self.observer.observe(x)
            return x
        if self.bits.activation is None:
            return x
        if self.input_scale is None or self.input_zero_point is None:
            return fake_quantize_activation(x, self.bits.activation, self.scheme.activation_range)
        zero_point = self.input_zero_point.to(self.input_scale.dtype)
        return fake_quantize(x, self.input_scale, zero_point, *integer_range(self.bits.activation, False))

    @property
    def weight_limits(self) -> tuple[int, int]:
        """Smallest and largest integer weight."""
        assert self.bits.weight is not None
        return integer_range(self.bits.weight, self.scheme.weight_symmetric)

    @property
    def weight_int(self) -> Tensor:
        """The integer weight, int32, shape of `weight`."""
        return encode(self.weight.detach(), self.weight_scale, self.weight_zero_point, *self.weight_limits)

    @torch.no_grad()
    def fix_input_range(self, low: Tensor, high: Tensor) -> None:
        """Fixes the input's scale and zero point from its range (both []), and with them the integer bias."""
        assert self.bits.activation is not None
        scale, zero_point = scale_zero_point(low, high, self.bits.activation, False)
        self.input_scale, self.input_zero_point = scale, zero_point.to(torch.int32)
        self._round_bias()

    @torch.no_grad()
    def set_bias(self, bias: Tensor) -> None:
        """Gives the layer this bias [O], rounded to the device's integers where the input range is fixed."""
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._round_bias()

    def _round_bias(self) -> None:
        if self.bias is None or self.input_scale is None:
            return
        self._make_room_for_bias(self.bias, self.input_scale)
        bias_scale = self.input_scale.double() * self.weight_scale.double()
        bias_int = (self.bias.double() / bias_scale).round().clamp(-BIAS_LIMIT, BIAS_LIMIT)
        self.bias_int = bias_int.to(torch.int32)
        self.bias.copy_(bias_int * bias_scale)

    def _make_room_for_bias(self, bias: Tensor, input_scale: Tensor) -> None:
        """Widens the weight scale where the bias would not fit into int32 at input_scale * weight_scale.

        That is the case only where the weight is next to nothing beside the bias (by 2^30 steps), so nothing of worth
        is lost. A weight of zeros has no scale of its own and gets the one that keeps the bias.
        """
        size, zero = bias.abs(), self.weight.flatten(1).eq(0).all(dim=1)
        if self.weight_scale.dim() == 0:
            size, zero = size.max(), zero.all()
        least = size / (input_scale * _BIAS_ROOM)
        fine = size / (input_scale * _BIAS_FINE)
        old = self.weight_scale
        self.weight_scale = torch.where(zero & (fine > 0), fine, torch.maximum(old, least))
        if not torch.equal(old, self.weight_scale):
            zero_point = self.weight_zero_point.to(old.dtype)
            self.weight.copy_(fake_quantize(self.weight, self.weight_scale, zero_point, *self.weight_limits))

    def extra_repr(self) -> str:
        """The float layer's text and the bit-widths."""
        return f"{super().extra_repr()}, {self.bits}"


class QuantConv1d(QuantLayer, nn.Conv1d):
    """A 1-D convolution with quantized weight and input."""


class QuantConv2d(QuantLayer, nn.Conv2d):
    """A 2-D convolution with quantized weight and input."""


class QuantConv3d(QuantLayer, nn.Conv3d):
    """A 3-D convolution with quantized weight and input."""


class QuantLinear(QuantLayer, nn.Linear):  # type: ignore[misc]  # nn.Linear narrows the type of its bias
    """A linear layer with quantized weight and input."""


_QUANTIZED: dict[type[nn.Module], type[QuantLayer]] = {
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.Conv3d: QuantConv3d,
    nn.Linear: QuantLinear,
}


@torch.no_grad()
def quantize_layer(
    name: str, layer: nn.Module, bits: LayerBits, scheme: QuantScheme, gain: Tensor | None = None
) -> QuantLayer:
    """Returns a quantized copy of a float layer, its input range still open; `gain` [O] as in `fake_quantize_weight`.

    Raises:
        NotFiniteError: the layer's weight or bias is not finite; the message names the layer.
    """
    layer_class = quantizable_class(layer)
    assert layer_class is not None
    assert bits.weight is not None
    check_finite(name, layer)
    new = copy.deepcopy(layer)
    new.__class__ = _QUANTIZED[layer_class]
    assert isinstance(new, QuantLayer)
    scale, zero_point = weight_qparams(new.weight, bits.weight, scheme)
    new.bits, new.scheme, new.observer = bits, scheme, None
    new.register_buffer("weight_scale", scale)
    new.register_buffer("weight_zero_point", zero_point.to(torch.int32))
    for buffer in ("input_scale", "input_zero_point", "bias_int"):
        new.register_buffer(buffer, None)
    if "squant" in scheme.steps:
        weight = _round_with_squant(new.weight, bits.weight, scheme, gain)
    elif gain is None:
        weight = fake_quantize(new.weight, scale, zero_point, *new.weight_limits)
    else:
        weight = fake_quantize_weight(new.weight, bits.weight, scheme, gain)
    new.weight = nn.Parameter(weight, requires_grad=False)
    if new.bias is not None:
        new.bias = nn.Parameter(new.bias.clone(), requires_grad=False)
    return new


def _round_with_squant(weight: Tensor, bits: int, scheme: QuantScheme, gain: Tensor | None) -> Tensor:
    """As `fake_quantize_weight`, rounded by `squant` instead of to the nearest."""
    if gain is None or scheme.folding_commutes:
        factor = torch.ones_like(weight[:1])
    else:
        factor = along_channels(gain.where(gain != 0, 1.0), weight)
    folded = weight * factor
    qparams = weight_qparams(folded, bits, scheme)
    return squant(folded, *qparams, *integer_range(bits, scheme.weight_symmetric)) / factor


def check_finite(name: str, layer: nn.Module, *, buffers: bool = False) -> None:
    """Raises SchemeError naming the layer and the parameter (or buffer, where asked) that holds NaN or infinity."""
    tensors = [*layer.named_parameters(recurse=False), *(layer.named_buffers(recurse=False) if buffers else ())]
    for what, tensor in tensors:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            owner = f"layer {name!r}" if name else "the network"
            raise NotFiniteError(
                f"{owner}: {bad} of {tensor.numel()} values of its {what} are NaN or infinite; "
                "a network must be finite before it can be quantized"
            )
