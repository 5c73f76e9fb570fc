"""The baseline without a graph: every node is transformed on its own (GHN-2, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghnq.graph.batching.batch import GraphBatch


class NodeMLP(nn.Module):
    """An `Encoder`: two layers, no messages."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, h_ND: Tensor, batch: GraphBatch) -> Tensor:
        """[N, D] -> [N, D]; see `Encoder`."""
        return torch.relu(self.outer(torch.relu(self.inner(h_ND))))
