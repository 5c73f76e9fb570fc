"""Augmentation of whole batches of uint8 images, without a loop over images.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_crop(pixels: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Shifts every image by its own random offset of up to `padding` pixels, filling with zeros.

    Args:
        pixels: [B, C, H, W] of any dtype.
        padding: the largest shift in pixels, in either direction.
        generator: on the CPU; the offsets are its next B draws in 0 .. 2*padding (rows), then B draws (columns).

    Returns:
        The shifted images, same shape and dtype.
    """
    count, _, height, width = pixels.shape
    rows = torch.randint(0, 2 * padding + 1, (count,), generator=generator).to(pixels.device)
    columns = torch.randint(0, 2 * padding + 1, (count,), generator=generator).to(pixels.device)
    padded = F.pad(pixels, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: [B, C, 2p+1, 2p+1, H, W]
    return windows[torch.arange(count, device=pixels.device), :, rows, columns]


def random_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image horizontally with probability 1/2.

    Args:
        pixels: [B, C, H, W] of any dtype.
        generator: on the CPU; its next B draws decide.

    Returns:
        The images, same shape and dtype.
    """
    mirrored = torch.randint(0, 2, (len(pixels), 1, 1, 1), generator=generator).to(pixels.device)
    return torch.where(mirrored.bool(), pixels.flip(-1), pixels)
