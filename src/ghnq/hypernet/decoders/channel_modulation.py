"""Per-channel factors for layers wider than `max_shape`, so that no two of their filters are copies.

A weight wider than the decoder's largest block repeats that block (GHN-2). Repeated filters compute the same, and stay
equal in training. Here every weight of such a layer is multiplied by a factor of its own,

    g[o, p] = 1 + sum_r c_r(h) A[o, r] B[p, r]

with a code A for each out-channel and a code B for each in-channel (dense) or kernel position (depthwise), both learned
and shared by all layers, and coefficients c, a linear function of the node embedding h. The cost is R multiply-adds for
each pair (o, p), whatever the kernel.

Dimensions: S slots of a group, D hidden, R rank, O/I out- and in-channels, K kernel height or width, P pairs' second
index: in-channels or kernel positions, C channels of a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghnq.hypernet.decoders.decoder import WeightRequest
from ghnq.hypernet.decoders.modulated_tiling import tile_modulated
from ghnq.hypernet.tiling import Tiling, tile, tile_block

MAX_CHANNELS = 4096
"""Channels with a code of their own; the codes of further channels start again from the first."""
INITIAL_DEVIATION = 0.1
"""Standard deviation of the factors of a new hypernetwork."""


class ChannelModulation(nn.Module):
    """Blocks and node embeddings -> weights whose filters differ."""

    def __init__(self, *, hidden: int, rank: int, max_kernel: int) -> None:
        super().__init__()
        self.out_codes = nn.Parameter(torch.randn(MAX_CHANNELS, rank))
        self.in_codes = nn.Parameter(torch.randn(MAX_CHANNELS, rank))
        self.position_codes = nn.Parameter(torch.randn(max_kernel, max_kernel, rank))
        self.dense = _coefficients(hidden, rank)
        self.depthwise = _coefficients(hidden, rank)

    def forward(self, block: Tensor, h_SD: Tensor, request: WeightRequest) -> Tensor:
        """Returns the weights [S, O, I, K, K] of a group, tiled from blocks [S, o, i, K, K] and modulated."""
        tiling = request.tiling
        if not request.depthwise:
            return tile_modulated(block, *self.dense_codes(h_SD, tiling.shape), tiling)
        plain = Tiling(tiling.shape, tiling.gain, tiling.channels_last)
        weights = tile_block(block, plain) * self.depthwise_factors(h_SD, tiling.shape)
        tiling.add_identity(weights)
        return weights

    def dense_codes(self, h_SD: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Returns c(h) A [S, O, R] and B [I, R]; the factors of a dense weight are one plus their product."""
        out, in_ = shape[:2]
        return self.dense(h_SD)[:, None] * codes_for(self.out_codes, out), codes_for(self.in_codes, in_)

    def depthwise_factors(self, h_SD: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Returns factors [S, O, 1, K, K] of depthwise weights; those of a smaller kernel are the centre's.

        The codes of a kernel larger than the largest one are repeated.
        """
        out, _, height, width = shape
        largest, rank = self.position_codes.shape[1:]
        top, left = max(0, largest // 2 - height // 2), max(0, largest // 2 - width // 2)
        centre = self.position_codes[top : top + height, left : left + width]
        codes_PR = tile(centre[None], (height, width, rank))[0].flatten(0, 1)
        weighted_SOR = self.depthwise(h_SD)[:, None] * codes_for(self.out_codes, out)
        one, codes_SRP = weighted_SOR.new_ones(()), codes_PR.t().expand(len(weighted_SOR), -1, -1)
        return torch.baddbmm(one, weighted_SOR, codes_SRP).view(-1, out, 1, height, width)


class VectorModulation(nn.Module):
    """Node embeddings [S, D] -> offsets of one-dimensional parameters wider than `max_shape`, one for each channel."""

    def __init__(self, *, hidden: int, rank: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(MAX_CHANNELS, rank))
        self.scale = _coefficients(hidden, rank)
        self.shift = _coefficients(hidden, rank)

    def scale_offsets(self, h_SD: Tensor, channels: int) -> Tensor:
        """Returns offsets [S, C] of scales before they are bounded."""
        return torch.as_tensor(self.scale(h_SD) @ codes_for(self.codes, channels).t())

    def shift_offsets(self, h_SD: Tensor, channels: int) -> Tensor:
        """Returns offsets [S, C] of shifts and biases before they are bounded."""
        return torch.as_tensor(self.shift(h_SD) @ codes_for(self.codes, channels).t())


def codes_for(codes: Tensor, count: int) -> Tensor:
    """Returns the codes [count, R] of the first `count` channels."""
    return tile(codes[None], (count, codes.shape[1]))[0]


def _coefficients(hidden: int, rank: int) -> nn.Linear:
    """Returns a layer [S, D] -> [S, R] for which the factors of a new hypernetwork deviate little from one."""
    layer = nn.Linear(hidden, rank)
    nn.init.normal_(layer.weight, std=INITIAL_DEVIATION / (hidden * rank) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer
