"""Convolution and linear layers that are trained through quantization: float weights, quantized in every forward pass.

The weight is quantized as it is deployed, with the batch norm that follows folded into it. That norm stays a module of
its own, because it normalises with the statistics of the batch while training. With symmetric per-channel weights this
is the same: the gain of the norm multiplies weight and scale of a channel alike, and the grid is symmetric, so that a
negative gain only changes signs. For all other schemes `weight * gain` is quantized, with the gain of the running
statistics, and divided by the gain again (`fake_quantize_weight`).

The input is quantized with the range of the batch. Gradients pass straight through both (Bengio et al. 2013, arXiv
1308.3432; for this placement Jacob et al. 2018, arXiv 1712.05877, section 3).

Dimensions: O output channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.dynamic_ranges import fake_quantize_activation, fake_quantize_weight
from ghnq.quant.folding import fold_gain
from ghnq.quant.quantizable import quantizable_class
from ghnq.quant.scheme import QuantScheme
from ghnq.quant.weight_layout import gain_of_weights, groups_sharing_scales, outputs_first
from ghnq.torch_compat import ConvNd, convolve, convolve_transposed


class TrainableLayer(nn.Module):
    """Base class of the layers: what it adds to a float layer is not in the state dict, nor is anything renamed.

    Attributes:
        bits: The bit-widths of weight and input.
        scheme: The scheme that the layer is quantized with.
        weight: The float weight, [O, ...].
        bias: The float bias, [O], or None.
    """

    bits: LayerBits
    scheme: QuantScheme
    weight: Tensor
    bias: Tensor | None
    _float_class: type[nn.Module]
    # In a tuple, so that the norm does not become a child of the layer. Empty where the gain makes no difference.
    _folded_norm: tuple[nn.Module, ...]

    def quantized_weight(self) -> Tensor:
        """Returns the weight as deployed, divided by the gain of the norm that will be folded into it, [O, ...]."""
        assert self.bits.weight is not None
        gain_O = None
        if self._folded_norm:
            with torch.no_grad():
                gain_O = gain_of_weights(self, fold_gain(self._folded_norm[0]))
        weight = outputs_first(self, self.weight)
        return outputs_first(self, fake_quantize_weight(weight, self.bits.weight, self.scheme, gain_O))

    def quantized_input(self, x: Tensor) -> Tensor:
        """Returns the input quantized with its own range, same shape as x."""
        if self.bits.activation is None:
            return x
        return fake_quantize_activation(x, self.bits.activation, self.scheme.activation_range)

    def extra_repr(self) -> str:
        """Returns the text of the float layer and the bit-widths."""
        return f"{super().extra_repr()}, {self.bits}"


class _TrainableConv(TrainableLayer):
    def forward(self, x: Tensor) -> Tensor:
        """Convolves the quantized input with the quantized weight."""
        assert isinstance(self, ConvNd)
        return convolve(self, self.quantized_input(x), self.quantized_weight())


class TrainableConv1d(_TrainableConv, nn.Conv1d):
    """A 1-D convolution that is trained through quantization."""


class TrainableConv2d(_TrainableConv, nn.Conv2d):
    """A 2-D convolution that is trained through quantization."""


class TrainableConv3d(_TrainableConv, nn.Conv3d):
    """A 3-D convolution that is trained through quantization."""


class _TrainableTransposed(TrainableLayer):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Computes the transposed convolution of the quantized input with the quantized weight."""
        assert isinstance(self, ConvNd)
        return convolve_transposed(self, self.quantized_input(x), self.quantized_weight(), output_size)


class TrainableConvTranspose1d(_TrainableTransposed, nn.ConvTranspose1d):
    """A transposed 1-D convolution that is trained through quantization."""


class TrainableConvTranspose2d(_TrainableTransposed, nn.ConvTranspose2d):
    """A transposed 2-D convolution that is trained through quantization."""


class TrainableConvTranspose3d(_TrainableTransposed, nn.ConvTranspose3d):
    """A transposed 3-D convolution that is trained through quantization."""


class TrainableLinear(TrainableLayer, nn.Linear):  # type: ignore[misc]  # nn.Linear narrows the type of its bias
    """A linear layer that is trained through quantization."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies the quantized input by the quantized weight."""
        return F.linear(self.quantized_input(x), self.quantized_weight(), self.bias)


_TRAINABLE_CLASSES: dict[type[nn.Module], type[TrainableLayer]] = {
    nn.Conv1d: TrainableConv1d,
    nn.Conv2d: TrainableConv2d,
    nn.Conv3d: TrainableConv3d,
    nn.ConvTranspose1d: TrainableConvTranspose1d,
    nn.ConvTranspose2d: TrainableConvTranspose2d,
    nn.ConvTranspose3d: TrainableConvTranspose3d,
    nn.Linear: TrainableLinear,
}


def make_trainable(layer: nn.Module, bits: LayerBits, scheme: QuantScheme, norm: nn.Module | None) -> None:
    """Turns a float layer into a trainable one, in place; its parameters stay the same objects.

    Args:
        layer: A quantizable layer.
        bits: Its bit-widths.
        scheme: Everything else.
        norm: The batch norm that is folded into the layer when it is deployed, if there is one.
    """
    layer_class = quantizable_class(layer)
    assert layer_class is not None
    float_class = type(layer)
    layer.__class__ = _TRAINABLE_CLASSES[layer_class]
    assert isinstance(layer, TrainableLayer)
    layer.bits, layer.scheme, layer._float_class = bits, scheme, float_class
    commutes = scheme.folding_commutes and groups_sharing_scales(layer) == 1
    layer._folded_norm = () if norm is None or commutes else (norm,)


def make_float(layer: TrainableLayer) -> None:
    """Turns a trainable layer back into the float layer that it was, in place."""
    float_class = layer._float_class
    for name in ("bits", "scheme", "_float_class", "_folded_norm"):
        delattr(layer, name)
    layer.__class__ = float_class  # type: ignore[assignment]
