"""Resizes images: the shorter side, then a crop of the centre.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_and_crop(pixels: Tensor, size: int) -> Tensor:
    """Resizes the shorter side to `size`, keeping the aspect ratio (bilinear, antialiased), and crops the centre.

    Args:
        pixels: uint8 [B, C, H, W].

    Returns:
        uint8 [B, C, size, size].
    """
    height, width = pixels.shape[2:]
    if (height, width) == (size, size):
        return pixels
    shorter = min(height, width)
    shape = (round(height * size / shorter), round(width * size / shorter))
    top, left = ((side - size) // 2 for side in shape)
    parts = [  # a thousand images at a time, to bound the memory in floats
        F.interpolate(part.float(), size=shape, mode="bilinear", antialias=True)[
            :, :, top : top + size, left : left + size
        ]
        for part in torch.split(pixels, 1000)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])
