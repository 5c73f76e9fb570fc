"""Running a network on images.

Dimensions: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BATCH_SIZE = 250
"""Images in one forward pass. A fixed number: another one may change the last bits of the logits."""


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Returns the logits [B, K] of a network in eval mode for normalised images [B, C, H, W]."""
    return torch.cat([network(batch) for batch in torch.split(images, BATCH_SIZE)])
