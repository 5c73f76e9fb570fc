"""Distillation: a trained network whose class probabilities are imitated (Hinton et al. 2015, arXiv 1503.02531).

Dimensions: B images, K classes.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Teacher:
    """A network in eval mode that sees the same augmented images as the one that is trained.

    Args:
        network: A network that returns logits [B, K]; it is copied.
        device: Where it runs.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False).to(device)
        self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(self, logits: Tensor, images: Tensor, temperature: float) -> Tensor:
        """Returns T^2 KL(teacher || student) at temperature T, mean over images; [] for logits [B, K]."""
        with torch.no_grad():
            target = F.log_softmax(self.network(images) / temperature, 1)
        own = F.log_softmax(logits / temperature, 1)
        return temperature**2 * F.kl_div(own, target, reduction="batchmean", log_target=True)
