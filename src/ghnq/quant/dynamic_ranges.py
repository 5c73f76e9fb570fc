"""Fake quantization with ranges taken from the tensor at hand: what a training step calls."""

from torch import Tensor

from ghnq.quant.affine import along_channels, fake_quantize, integer_range, scale_zero_point
from ghnq.quant.ranges import activation_range, weight_range
from ghnq.quant.scheme import Estimator, QuantScheme


def weight_qparams(weight: Tensor, bits: int, scheme: QuantScheme) -> tuple[Tensor, Tensor]:
    """Scale and zero point, both [O] or [], of a weight [O, ...] under the scheme's granularity and estimator."""
    low, high = weight_range(
        weight,
        bits,
        granularity=scheme.weight_granularity,
        symmetric=scheme.weight_symmetric,
        estimator=scheme.weight_range,
    )
    return scale_zero_point(low, high, bits, scheme.weight_symmetric)


def fake_quantize_weight(weight: Tensor, bits: int, scheme: QuantScheme, gain: Tensor | None = None) -> Tensor:
    """Quantizes a weight [O, ...] with straight-through gradients; the result has the scale of the weight that came.

    With `gain` [O] (batch norm's weight / sqrt(variance + eps)) the *folded* weight `weight * gain` is quantized and
    the gain taken out again, so a network that still has its batch norm computes what the folded network will. For
    symmetric per-channel schemes this changes nothing (the grid scales along), so the gain is not even looked at.
    """
    limits = integer_range(bits, scheme.weight_symmetric)
    if gain is None or scheme.folding_commutes:
        return fake_quantize(weight, *weight_qparams(weight, bits, scheme), *limits)
    # A gain of zero removes the channel from the folded network: any weight would do, and 1 keeps it finite.
    gain = along_channels(gain.where(gain != 0, 1.0), weight)
    folded = weight * gain
    return fake_quantize(folded, *weight_qparams(folded, bits, scheme), *limits) / gain


def fake_quantize_activation(x: Tensor, bits: int, estimator: Estimator = "minmax") -> Tensor:
    """Quantizes an activation of any shape, per tensor, asymmetric, with its own range; straight-through."""
    scale, zero_point = scale_zero_point(*activation_range(x, bits, estimator), bits, False)
    return fake_quantize(x, scale, zero_point, *integer_range(bits, False))
