"""Per-channel factors for layers wider than `max_shape`, so that no two of their filters are copies.

A weight wider than the decoder's largest block repeats that block (GHN-2). Repeated filters compute the same, and stay
equal in training. Here every weight of such a layer is multiplied by a factor of its own,

    g[o, p] = 1 + sum_r c_r(h) A[o, r] B[p, r]

with a code A for each out-channel and a code B for each in-channel (dense) or kernel position (depthwise), both learned
and shared by all layers, and coefficients c that the node embedding h decides. The cost is R multiply-adds for each
pair (o, p), whatever the kernel.

Dimensions: S slots of a group, D hidden, R rank, O/I out- and in-channels, K kernel height or width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_CHANNELS = 4096
"""Channels with a code of their own; further channels take the codes anew from the first."""
INITIAL_DEVIATION = 0.1
"""Standard deviation of the factors of a new hypernetwork."""


class ChannelModulation(nn.Module):
    """Node embeddings [S, D] -> factors around 1."""

    def __init__(self, *, hidden: int, rank: int, max_kernel: int) -> None:
        super().__init__()
        self.out_codes = nn.Parameter(torch.randn(MAX_CHANNELS, rank))
        self.in_codes = nn.Parameter(torch.randn(MAX_CHANNELS, rank))
        self.position_codes = nn.Parameter(torch.randn(max_kernel, max_kernel, rank))
        self.dense = coefficients(hidden, rank)
        self.depthwise = coefficients(hidden, rank)

    def factors(self, h_SD: Tensor, shape: tuple[int, int, int, int], *, depthwise: bool) -> Tensor:
        """Factors [S, O, I, 1, 1] of dense weights of shape (O, I, K, K), [S, O, 1, K, K] of depthwise ones."""
        out, in_, height, width = shape
        out_codes = codes_for(self.out_codes, out)
        if not depthwise:
            weighted = self.dense(h_SD)[:, None] * out_codes
            return _one_plus_product(weighted, codes_for(self.in_codes, in_))[..., None, None]
        most = self.position_codes.shape[0]
        top, left = most // 2 - height // 2, most // 2 - width // 2
        positions = self.position_codes[top : top + height, left : left + width].flatten(0, 1)
        weighted = self.depthwise(h_SD)[:, None] * out_codes
        return _one_plus_product(weighted, positions).view(-1, out, 1, height, width)


class VectorModulation(nn.Module):
    """Node embeddings [S, D] -> what is added to one-dimensional parameters wider than `max_shape`, per channel."""

    def __init__(self, *, hidden: int, rank: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(MAX_CHANNELS, rank))
        self.scale = coefficients(hidden, rank)
        self.shift = coefficients(hidden, rank)

    def scale_offsets(self, h_SD: Tensor, channels: int) -> Tensor:
        """[S, D] -> [S, channels], for scales before they are squashed."""
        return torch.as_tensor(self.scale(h_SD) @ codes_for(self.codes, channels).t())

    def shift_offsets(self, h_SD: Tensor, channels: int) -> Tensor:
        """[S, D] -> [S, channels], for shifts and biases before they are squashed."""
        return torch.as_tensor(self.shift(h_SD) @ codes_for(self.codes, channels).t())


def coefficients(hidden: int, rank: int) -> nn.Linear:
    """The layer [S, D] -> [S, R] that weighs the codes; of a new hypernetwork such that factors deviate little."""
    layer = nn.Linear(hidden, rank)
    nn.init.normal_(layer.weight, std=INITIAL_DEVIATION / (hidden * rank) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer


def codes_for(codes: Tensor, count: int) -> Tensor:
    """The codes [count, R] of the first `count` channels."""
    if count <= len(codes):
        return codes[:count]
    return codes.repeat(-(-count // len(codes)), 1)[:count]


def _one_plus_product(left_SOR: Tensor, right_PR: Tensor) -> Tensor:
    """1 + left @ right^T, [S, O, P], in one pass."""
    one = left_SOR.new_ones(())
    return torch.baddbmm(one, left_SOR, right_PR.t().expand(len(left_SOR), -1, -1))
