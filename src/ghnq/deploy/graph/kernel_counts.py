"""Which kernels a runtime uses for a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelCounts:
    """How many nodes of a runtime's optimised graph compute in integers, compute in float, or convert between the two.

    Attributes:
        integer: Nodes that compute in integers, by operator.
        floating: Nodes that compute in float, by operator.
        borders: Nodes that quantize or dequantize, by operator.
        float_layers: Names of the convolutions and linear layers that compute in float.
    """

    integer: dict[str, int]
    floating: dict[str, int]
    borders: dict[str, int]
    float_layers: tuple[str, ...]
