"""The multiply-adds of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod


def layer_multiply_adds(weight_shape: Sequence[int], output_shape: Sequence[int]) -> int:
    """Returns the multiply-adds of a convolution or linear layer: fan-in times output elements.

    For a strided transposed convolution this is an upper bound.

    Args:
        weight_shape: [out, in / groups, kernel...], or [out, in] for a linear layer.
        output_shape: Of the output for one image, without the batch.
    """
    return prod(weight_shape[1:]) * prod(output_shape)
