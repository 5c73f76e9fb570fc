"""The embedding of a node: its op plus the bucketed shape of its weight (GHN-2, section 4.2).

Dimensions: N nodes, D hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_CHANNEL = 8192


def channel_buckets(num_classes: int) -> list[int]:
    """Returns the channel counts that have an embedding of their own: 1, 3, the classes, then steps of 8, 16 and 32."""
    steps = {*range(8, 64, 8), *range(64, 4096, 16), *range(4096, LARGEST_CHANNEL + 1, 32)}
    return sorted({1, 3, num_classes} | steps)


def spatial_buckets(max_kernel: int) -> list[int]:
    """Returns the kernel sizes that have an embedding of their own: the odd ones, 14 and 16."""
    return sorted({*range(1, max(12, max_kernel), 2), 14, 16})


def bucket_table(buckets: list[int], exceptions: dict[int, int]) -> Tensor:
    """Returns a table from sizes to the nearest bucket, the smaller of two equally near ones.

    Args:
        exceptions: Sizes that get the bucket of another size.

    Returns:
        Long [largest bucket + 2]. The last entry is for all larger sizes; size 0 (no shape) has a bucket of its own.
    """
    sizes = torch.arange(buckets[-1] + 2)
    table = (sizes[:, None] - torch.tensor(buckets)).abs().argmin(dim=1)
    for size, like in exceptions.items():
        table[size] = buckets.index(like)
    table[0] = len(buckets)
    return table


class NodeEmbedding(nn.Module):
    """Embeds op and shape of every node, [N] and [N, 4] -> [N, D]; D must be a multiple of 4.

    An op beyond the `num_ops` that have an embedding (`other`) contributes zero: of it only the shape is embedded.
    """

    channel_table: Tensor
    spatial_table: Tensor

    def __init__(self, *, hidden: int, num_ops: int, num_classes: int, max_kernel: int) -> None:
        super().__init__()
        channels, spatial = channel_buckets(num_classes), spatial_buckets(max_kernel)
        self.op = nn.Embedding(num_ops, hidden)
        self.channel = nn.Embedding(len(channels) + 1, hidden // 4)
        self.spatial = nn.Embedding(len(spatial) + 1, hidden // 4)
        # 4 to 7 channels and 2 x 2 kernels do not occur in the training of GHN-2: they share the bucket of 8 and of 3.
        channel_table = bucket_table(channels, dict.fromkeys(range(4, 8), 8))
        self.register_buffer("channel_table", channel_table, persistent=False)
        self.register_buffer("spatial_table", bucket_table(spatial, {2: 3}), persistent=False)

    def forward(self, op: Tensor, shape: Tensor) -> Tensor:
        channels = self.channel_table[shape[:, :2].clamp(max=len(self.channel_table) - 1)]
        spatial = self.spatial_table[shape[:, 2:].clamp(max=len(self.spatial_table) - 1)]
        embedded = torch.cat([self.channel(channels).flatten(1), self.spatial(spatial).flatten(1)], dim=1)
        # A row of zeros after the last keeps it one look-up, and the table in checkpoints as long as it was.
        known = F.pad(self.op.weight, (0, 0, 0, 1))
        return F.embedding(op.clamp(max=self.op.num_embeddings), known) + embedded
