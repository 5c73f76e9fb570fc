"""Convolution and linear layers that compute, in float, what an integer device computes.

Dimensions: O output channels.
"""

from __future__ import annotations

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
from ghnq.quant.weight_layout import for_outputs, gain_of_weights, groups_sharing_scales, outputs_first
from ghnq.torch_compat import copy_layer

MAX_INT32 = 2**31 - 1
_MAX_BIAS = 2**30  # Leaves half of the range of int32 for what the accumulator adds to the bias.
_ZERO_WEIGHT_BIAS = 2**24  # The integer bias of a channel whose weights are zero: the precision of float32.


class QuantLayer(nn.Module):
    """Base class of the quantized layers: a fake-quantized weight and a fake-quantized input.

    Until `fix_input_range` is called, the input is quantized with the range of each batch.

    Attributes:
        bits: The bit-widths of weight and input.
        scheme: The scheme that the layer is quantized with.
        weight: The real values of the integer weight, [O, ...]; [I, O / G, ...] of a transposed convolution.
        bias: The real values of the integer bias once the input range is fixed, [O].
        weight_scale: Buffer, [O] or []; [O / G] of a transposed convolution.
        weight_zero_point: Buffer, int32, of the same shape.
        input_scale: Buffer, [], once the input range is fixed.
        input_zero_point: Buffer, int32, [], once the input range is fixed.
        bias_int: Buffer, int32, [O], at scale input_scale * weight_scale, once the input range is fixed.
        observer: Collects the range of the input, which is not quantized meanwhile.
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
        """Returns the quantized and dequantized input, same shape as x; x itself while an observer is attached."""
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
        """The smallest and the largest integer weight."""
        assert self.bits.weight is not None
        return integer_range(self.bits.weight, self.scheme.weight_symmetric)

    @property
    def weight_int(self) -> Tensor:
        """The integer weight, int32, shape of `weight`."""
        weight = outputs_first(self, self.weight.detach())
        return outputs_first(self, encode(weight, self.weight_scale, self.weight_zero_point, *self.weight_limits))

    @property
    def output_scale(self) -> Tensor:
        """The weight scale of every output channel, [O] or []."""
        return for_outputs(self, self.weight_scale)

    @torch.no_grad()
    def fix_input_range(self, low: Tensor, high: Tensor) -> None:
        """Fixes the input's scale and zero point from its range (both []), and with them the integer bias."""
        assert self.bits.activation is not None
        scale, zero_point = scale_zero_point(low, high, self.bits.activation, False)
        self.input_scale, self.input_zero_point = scale, zero_point.to(torch.int32)
        self._round_bias()

    @torch.no_grad()
    def set_bias(self, bias: Tensor) -> None:
        """Sets the bias [O], which is rounded to an integer of the device once the input range is fixed."""
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._round_bias()

    def _round_bias(self) -> None:
        if self.bias is None or self.input_scale is None:
            return
        self._widen_weight_scale(self.bias, self.input_scale)
        bias_scale = self.input_scale.double() * self.output_scale.double()
        bias_int = (self.bias.double() / bias_scale).round().clamp(-MAX_INT32, MAX_INT32)
        self.bias_int = bias_int.to(torch.int32)
        self.bias.copy_(bias_int * bias_scale)

    def _widen_weight_scale(self, bias_O: Tensor, input_scale: Tensor) -> None:
        """Increases weight scales at which the integer bias would exceed the range of int32.

        The weights of such a channel are negligible beside its bias, by a factor of 2^30 steps, so their loss of
        precision does not matter. Weights that are all zero have no scale of their own; their scale is that at which
        the bias has the precision of float32.
        """
        weight = outputs_first(self, self.weight)
        magnitude = bias_O.abs().reshape(groups_sharing_scales(self), -1).amax(dim=0)
        zero = weight.flatten(1).eq(0).all(dim=1)
        if self.weight_scale.dim() == 0:
            magnitude, zero = magnitude.max(), zero.all()
        smallest = magnitude / (input_scale * _MAX_BIAS)
        of_zero_weights = magnitude / (input_scale * _ZERO_WEIGHT_BIAS)
        old = self.weight_scale
        self.weight_scale = torch.where(zero & (of_zero_weights > 0), of_zero_weights, torch.maximum(old, smallest))
        if not torch.equal(old, self.weight_scale):
            zero_point = self.weight_zero_point.to(old.dtype)
            weight.copy_(fake_quantize(weight, self.weight_scale, zero_point, *self.weight_limits))

    def extra_repr(self) -> str:
        """Returns the text of the float layer and the bit-widths."""
        return f"{super().extra_repr()}, {self.bits}"


class QuantConv1d(QuantLayer, nn.Conv1d):
    """A 1-D convolution with quantized weight and input."""


class QuantConv2d(QuantLayer, nn.Conv2d):
    """A 2-D convolution with quantized weight and input."""


class QuantConv3d(QuantLayer, nn.Conv3d):
    """A 3-D convolution with quantized weight and input."""


class _QuantTransposed(QuantLayer):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Quantizes the input, then computes the transposed convolution with the quantized weight."""
        return cast(Tensor, super(QuantLayer, self).forward(self.quantize_input(x), output_size))


class QuantConvTranspose1d(_QuantTransposed, nn.ConvTranspose1d):
    """A transposed 1-D convolution with quantized weight and input."""


class QuantConvTranspose2d(_QuantTransposed, nn.ConvTranspose2d):
    """A transposed 2-D convolution with quantized weight and input."""


class QuantConvTranspose3d(_QuantTransposed, nn.ConvTranspose3d):
    """A transposed 3-D convolution with quantized weight and input."""


class QuantLinear(QuantLayer, nn.Linear):  # type: ignore[misc]  # nn.Linear narrows the type of its bias
    """A linear layer with quantized weight and input."""


_QUANTIZED_CLASSES: dict[type[nn.Module], type[QuantLayer]] = {
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.Conv3d: QuantConv3d,
    nn.ConvTranspose1d: QuantConvTranspose1d,
    nn.ConvTranspose2d: QuantConvTranspose2d,
    nn.ConvTranspose3d: QuantConvTranspose3d,
    nn.Linear: QuantLinear,
}


@torch.no_grad()
def quantize_layer(
    name: str, layer: nn.Module, bits: LayerBits, scheme: QuantScheme, gain: Tensor | None = None
) -> QuantLayer:
    """Returns a quantized copy of a float layer, whose input range is not fixed yet.

    Args:
        name: Name of the layer, for messages.
        layer: A quantizable layer.
        bits: Its bit-widths.
        scheme: Everything else.
        gain: [O], of the norm that will be folded into the layer, see `fake_quantize_weight`.

    Raises:
        NotFiniteError: The weight or the bias is not finite; the message names the layer.
    """
    layer_class = quantizable_class(layer)
    assert layer_class is not None
    assert bits.weight is not None
    check_finite(name, layer)
    new = copy_layer(layer)
    new.__class__ = _QUANTIZED_CLASSES[layer_class]
    assert isinstance(new, QuantLayer)
    in_float = outputs_first(new, new.weight)
    scale, zero_point = qparams = weight_qparams(in_float, bits.weight, scheme)
    new.bits, new.scheme, new.observer = bits, scheme, None
    new.register_buffer("weight_scale", scale)
    new.register_buffer("weight_zero_point", zero_point.to(torch.int32))
    for buffer in ("input_scale", "input_zero_point", "bias_int"):
        new.register_buffer(buffer, None)
    factor = None if gain is None else gain_of_weights(new, gain)
    groups = groups_sharing_scales(new)
    weight = _quantize_weight(in_float, qparams, bits.weight, scheme, factor, groups)
    new.weight = nn.Parameter(outputs_first(new, weight).contiguous(), requires_grad=False)
    if new.bias is not None:
        new.bias = nn.Parameter(new.bias.clone(), requires_grad=False)
    return new


def _quantize_weight(
    weight: Tensor,
    qparams: tuple[Tensor, Tensor],
    bits: int,
    scheme: QuantScheme,
    gain: Tensor | None,
    groups: int,
) -> Tensor:
    if "squant" in scheme.steps:
        return _round_with_squant(weight, bits, scheme, gain, groups)
    if gain is None:  # `fake_quantize_weight` would estimate the same scale and zero point again.
        return fake_quantize(weight, *qparams, *integer_range(bits, scheme.weight_symmetric))
    return fake_quantize_weight(weight, bits, scheme, gain)


def _round_with_squant(weight: Tensor, bits: int, scheme: QuantScheme, gain: Tensor | None, groups: int) -> Tensor:
    """Does what `fake_quantize_weight` does, but rounds with `squant` instead of to nearest.

    Args:
        groups: Into so many parts of dimension 1, which belong to different output channels, the weight is divided.
    """
    if gain is None or (scheme.folding_commutes and gain.dim() == 1):
        factor = torch.ones_like(weight[:1])
    else:
        factor = along_channels(gain.where(gain != 0, 1.0), weight)
    folded = weight * factor
    qparams = weight_qparams(folded, bits, scheme)
    limits = integer_range(bits, scheme.weight_symmetric)
    if groups == 1:
        return squant(folded, *qparams, *limits) / factor
    return torch.cat([squant(part, *qparams, *limits) for part in folded.chunk(groups, dim=1)], dim=1) / factor


def check_finite(name: str, layer: nn.Module, *, buffers: bool = False) -> None:
    """Checks the parameters of a layer, and its buffers if requested.

    Raises:
        NotFiniteError: One of them has NaN or infinite values; the message names it and the layer.
    """
    tensors = [*layer.named_parameters(recurse=False), *(layer.named_buffers(recurse=False) if buffers else ())]
    for tensor_name, tensor in tensors:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            owner = f"layer {name!r}" if name else "the network"
            raise NotFiniteError(
                f"{owner}: {bad} of {tensor.numel()} values of its {tensor_name} are NaN or infinite; "
                "a network must be finite before it can be quantized"
            )
