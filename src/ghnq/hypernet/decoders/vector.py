"""One-dimensional parameters: scale and shift of norms, biases, and the bias of the classification layer (GHN-2).

Dimensions: S vectors, D hidden, C the most channels that are predicted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VectorDecoder(nn.Module):
    """Embeddings [S, D] -> (scale [S, C], shift [S, C])."""

    def __init__(self, *, hidden: int, max_channels: int, num_classes: int) -> None:
        super().__init__()
        self.max_channels = max_channels
        self.inner = nn.Linear(hidden, 2 * hidden)
        self.outer = nn.Linear(2 * hidden, 2 * max_channels)
        self.classes = nn.Linear(max_channels, num_classes)

    def forward(self, h_SD: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scales [S, C] and shifts [S, C], before they are bounded."""
        pair = self.outer(torch.relu(self.inner(h_SD))).view(len(h_SD), 2, self.max_channels)
        return pair[:, 0], pair[:, 1]

    def class_bias(self, shift_SC: Tensor) -> Tensor:
        """Returns biases [S, classes] of the classification layer."""
        return torch.as_tensor(self.classes(torch.relu(shift_SC)))
