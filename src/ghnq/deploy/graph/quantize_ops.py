"""The two functions a quantized graph is made of: real values to integers, and back.

They are nodes of the graph, in float arithmetic, with the definitions of `ghnq.quant.affine`: a true division, ties
to even. An integer runtime fuses each chain dequantize - op - quantize into one integer kernel.
"""

import torch
from torch import Tensor

from ghnq.quant.affine import decode, encode


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """The integers of x, int32, same shape; scale and zero point are []."""
    return encode(x, scale, zero_point, smallest, largest)


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The real values (q - z) * s, float32, same shape as q; scale and zero point are [] or [O] for q [O, ...]."""
    # Narrow integers would wrap around in the subtraction.
    return decode(q.to(torch.int32), scale, zero_point)
