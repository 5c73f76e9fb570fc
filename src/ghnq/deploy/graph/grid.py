"""The quantization grid of a stored tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ghnq.quant.affine import scale_zero_point
from ghnq.quant.quantized_layers import QuantLayer


@dataclass(frozen=True, eq=False)
class Grid:
    """Scale (float32 []), zero point (int32 []) and bits of an unsigned grid 0 .. 2^bits - 1."""

    scale: Tensor
    zero_point: Tensor
    bits: int

    @classmethod
    def of_range(cls, low: Tensor, high: Tensor, bits: int) -> Grid:
        """Returns the grid of a range, as `ghnq.quant` computes it."""
        scale, zero_point = scale_zero_point(low, high, bits, False)
        return cls(scale, zero_point.to(torch.int32), bits)

    @classmethod
    def of_input(cls, layer: QuantLayer) -> Grid:
        """Returns the grid of a quantized layer's input."""
        assert layer.input_scale is not None
        assert layer.input_zero_point is not None
        assert layer.bits.activation is not None
        return cls(layer.input_scale, layer.input_zero_point, layer.bits.activation)

    @property
    def largest(self) -> int:
        """The largest integer; the smallest is 0."""
        return (1 << self.bits) - 1

    def equals(self, other: Grid) -> bool:
        """Returns whether both have exactly the same values."""
        return (
            self.bits == other.bits
            and torch.equal(self.scale, other.scale)
            and torch.equal(self.zero_point, other.zero_point)
        )

    def close_to(self, other: Grid) -> bool:
        """Returns whether both are grids of one range, observed once before and once after the biases were rounded.

        A thousandth of the scale is a quarter of a step at the end of 8 bits.
        """
        same_steps = torch.allclose(self.scale, other.scale, rtol=1e-3, atol=0)
        return self.bits == other.bits and same_steps and torch.equal(self.zero_point, other.zero_point)

    def clips_at(self, low: float | None, high: float | None) -> bool:
        """Returns whether quantizing limits values at least as much as a clip to low..high, so the clip is redundant.

        Rounding is monotone, so it is enough that both limits are rounded to the ends of the grid or beyond.
        """
        scale, zero_point = self.scale.item(), int(self.zero_point)

        def step(value: float) -> int:
            return round(value / scale) + zero_point

        return (low is None or step(low) <= 0) and (high is None or step(high) >= self.largest)
