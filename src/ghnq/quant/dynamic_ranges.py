"""Fake quantization of a tensor with the range of that tensor itself, as training steps use it."""

from __future__ import annotations

import torch
from torch import Tensor

from ghnq.quant.affine import along_channels, fake_quantize, integer_range, scale_zero_point
from ghnq.quant.ranges import activation_range, weight_range
from ghnq.quant.scheme import Estimator, QuantScheme


def weight_qparams(weight: Tensor, bits: int, scheme: QuantScheme) -> tuple[Tensor, Tensor]:
    """Returns scale and zero point, both [O] or [], of a weight [O, ...] by the scheme's granularity and estimator."""
    low, high = weight_range(
        weight,
        bits,
        granularity=scheme.weight_granularity,
        symmetric=scheme.weight_symmetric,
        estimator=scheme.weight_range,
    )
    return scale_zero_point(low, high, bits, scheme.weight_symmetric)


def fake_quantize_weight(weight: Tensor, bits: int, scheme: QuantScheme, gain: Tensor | None = None) -> Tensor:
    """Fake-quantizes a weight with straight-through gradients.

    With a gain, the folded weight `weight * gain` is quantized and the result divided by the gain, so that a network
    that still has its batch norms computes what the folded network will compute. For symmetric per-channel schemes the
    scale is proportional to the gain, so the result is the same with and without it, unless channels share a scale.

    Args:
        weight: [O, ...].
        bits: Bit-width.
        scheme: Decides granularity, symmetry and range estimator.
        gain: [O], the batch norm's weight / sqrt(variance + eps); or factors that broadcast to the weight, where
            channels share a scale (`gain_of_weights`).
    """
    if weight.dtype in (torch.float16, torch.bfloat16):
        gain = gain if gain is None else gain.float()
        return fake_quantize_weight(weight.float(), bits, scheme, gain).to(weight.dtype)
    limits = integer_range(bits, scheme.weight_symmetric)
    if gain is None or (scheme.folding_commutes and gain.dim() == 1):
        return fake_quantize(weight, *weight_qparams(weight, bits, scheme), *limits)
    # A gain of zero removes the channel from the folded network, whatever its weight; 1 keeps the quotient finite.
    gain = along_channels(gain.where(gain != 0, 1.0), weight)
    folded = weight * gain
    return fake_quantize(folded, *weight_qparams(folded, bits, scheme), *limits) / gain


def fake_quantize_activation(x: Tensor, bits: int, estimator: Estimator = "minmax") -> Tensor:
    """Fake-quantizes an activation of any shape, per tensor and asymmetric, with straight-through gradients."""
    scale, zero_point = scale_zero_point(*activation_range(x, bits, estimator), bits, False)
    return fake_quantize(x, scale, zero_point, *integer_range(bits, False))
