"""Saturation of integer kernels that add two products in 16 bits, as those for AVX2 and AVX-512 without VNNI do."""

from __future__ import annotations

import torch
from torch import fx

SAFE_WEIGHT = 64
"""Largest int8 weight that cannot overflow: 2 * 255 * 64 < 2^15."""


def has_wide_int8(simulation: fx.GraphModule) -> bool:
    """Returns whether a weight is stored as int8 and has a value larger than `SAFE_WEIGHT`."""
    return any(
        tensor.dtype == torch.int8 and tensor.dim() > 1 and int(tensor.to(torch.int32).abs().max()) > SAFE_WEIGHT
        for tensor in simulation.buffers()
    )
