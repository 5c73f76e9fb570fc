"""LoGAH's low-rank decoder (arXiv 2405.16287, section 3.2): a weight of any width as a product of two thin factors.

    z = MLP(h) in [2, R, R],  A = U relu(z_0) in [O K, R],  B = V relu(z_1) in [I K, R],  W[o, i, y, x] = A[oy] . B[ix]

The layers U and V grow with O + I where a convolutional decoder grows with O * I, so that thousands of channels are
predicted in one piece. Here they have a row for every channel and kernel row (or column), which kernels of all sizes
share; LoGAH numbers them anew for every size, and has U = V. As there, the classifier is a weight like any other.

Dimensions: S slots of a group, D hidden, R rank, O/I out- and in-channels, K kernel height or width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghnq.graph.ir import Shape
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.decoder import Shape4
from ghnq.hypernet.decoders.sliced_linear import RowGroup, sliced_linear
from ghnq.hypernet.decoders.tiled_decoder import (
    TiledDecoder,
    centre_start,
    channel_modulation,
    depthwise_block_decoder,
)
from ghnq.hypernet.tiling import Tiling, tile_block


class FactorDecoder(nn.Module):
    """A `BlockDecoder`: embeddings [S, D] of a group -> blocks [S, O, I, K, K] at most as large as `max_shape`."""

    def __init__(self, *, hidden: int, widths: tuple[int, int], rank: int, max_shape: Shape4, centred: bool) -> None:
        super().__init__()
        self.max_shape, self.rank, self.centred = max_shape, rank, centred
        self.inner = nn.Linear(hidden, widths[0])
        self.outer = nn.Linear(widths[0], widths[1])
        self.core = nn.Linear(widths[1], 2 * rank * rank)
        self.out = nn.Linear(rank, max_shape[0] * max_shape[2])
        self.into = nn.Linear(rank, max_shape[1] * max_shape[3])

    def forward(
        self, groups: Sequence[Tensor], shapes: Sequence[Shape4], tilings: Sequence[Tiling | None] | None = None
    ) -> list[Tensor]:
        """Embeddings [S, D] and shapes (O, I, K, K), per group -> blocks, or tiled weights; see `BlockDecoder`."""
        hidden = torch.relu(self.outer(torch.relu(self.inner(torch.cat(list(groups))))))
        core = torch.relu(self.core(hidden)).view(-1, 2, self.rank, self.rank)
        rows, columns = (core[:, i].flatten(0, 1) for i in (0, 1))
        sizes = [len(g) for g in groups]
        left = self._factors(rows, sizes, [(o, h) for o, _, h, _ in shapes], self.out, self.max_shape[0::2])
        right = self._factors(columns, sizes, [(i, w) for _, i, _, w in shapes], self.into, self.max_shape[1::2])
        products = [_product(a, b, shape) for a, b, shape in zip(left, right, shapes, strict=True)]
        if tilings is None:
            return products
        return [p if tiling is None else tile_block(p, tiling) for p, tiling in zip(products, tilings, strict=True)]

    def _factors(
        self, rows: Tensor, sizes: Sequence[int], shapes: Sequence[Shape], layer: nn.Linear, grid: Shape
    ) -> list[Tensor]:
        """Returns per group a factor [S, R, channels * K] from rows [S of all groups * R, R]."""
        wanted = [
            RowGroup(size * self.rank, shape, shape, (0, *centre_start(grid[1:], shape[1:])) if self.centred else ())
            for size, shape in zip(sizes, shapes, strict=True)
        ]
        factors = sliced_linear(rows, wanted, layer.weight, layer.bias, grid)
        return [f.reshape(size, self.rank, -1) for f, size in zip(factors, sizes, strict=True)]


def _product(left: Tensor, right: Tensor, shape: Shape4) -> Tensor:
    """[S, R, O * K] and [S, R, I * K] -> [S, O, I, K, K]."""
    o, i, h, w = shape
    return torch.bmm(left.transpose(1, 2), right).view(-1, o, h, i, w).permute(0, 1, 3, 2, 4)


class LowRankDecoder(TiledDecoder):
    """A `Decoder` with a `FactorDecoder` for blocks; the classification layer is a weight like any other."""

    @classmethod
    def from_config(cls, config: GHNConfig) -> LowRankDecoder:
        """Builds the decoder that a configuration describes."""

        def factors(max_shape: Shape4) -> FactorDecoder:
            return FactorDecoder(
                hidden=config.hidden,
                widths=config.decoder_widths,
                rank=config.rank,
                max_shape=max_shape,
                centred=config.kernel == "centre",
            )

        depthwise = depthwise_block_decoder(config, factors)
        dense = factors(config.max_shape)
        modulation = channel_modulation(config)
        return cls(max_shape=config.max_shape, dense=dense, depthwise=depthwise, modulation=modulation)
