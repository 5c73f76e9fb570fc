"""A quantizer in numpy that shares no code with the package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def limits(bits: int, symmetric: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def qparams(low: np.float32, high: np.float32, bits: int, symmetric: bool) -> tuple[np.float32, int]:
    """Scale and zero point of one range."""
    qmin, qmax = limits(bits, symmetric)
    if symmetric:
        scale = np.float32(max(abs(low), abs(high))) / np.float32(qmax)
    else:
        low, high = np.float32(min(low, 0)), np.float32(max(high, 0))
        scale = (high - low) / np.float32(qmax - qmin)
    if scale < np.finfo(np.float32).tiny:
        scale = np.float32(1)
    zero_point = 0 if symmetric else int(np.clip(np.rint(-low / scale), qmin, qmax))
    return scale, zero_point


def quantize(x: Array, scale: np.float32, zero_point: int, bits: int, symmetric: bool) -> NDArray[np.int64]:
    q = np.rint(x / scale).astype(np.float64) + zero_point
    return np.clip(q, *limits(bits, symmetric)).astype(np.int64)


def dequantize(q: NDArray[np.int64], scale: np.float32, zero_point: int) -> Array:
    return ((q - zero_point).astype(np.float32) * scale).astype(np.float32)


def fake_quantize(x: Array, bits: int, symmetric: bool) -> Array:
    """Per tensor, min-max."""
    scale, zero_point = qparams(x.min(), x.max(), bits, symmetric)
    return dequantize(quantize(x, scale, zero_point, bits, symmetric), scale, zero_point)


def fake_quantize_rows(x: Array, bits: int, symmetric: bool) -> Array:
    """Per channel along dimension 0, min-max."""
    return np.stack([fake_quantize(row, bits, symmetric) for row in x])


def integer_conv(
    x: NDArray[np.int64], w: NDArray[np.int64], stride: int, padding: int, groups: int
) -> NDArray[np.int64]:
    """Integer convolution of x [B, I, H, W] and w [O, I / groups, K, K], both with zero points subtracted."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    size = (x.shape[2] - w.shape[2]) // stride + 1
    out = np.zeros((len(x), len(w), size, size), dtype=np.int64)
    per_group_in, per_group_out = w.shape[1], len(w) // groups
    for o in range(len(w)):
        first = o // per_group_out * per_group_in
        for i in range(size):
            for j in range(size):
                patch = x[:, first : first + per_group_in, i * stride :, j * stride :][:, :, : w.shape[2], : w.shape[3]]
                out[:, o, i, j] = (patch * w[o]).sum(axis=(1, 2, 3))
    return out
