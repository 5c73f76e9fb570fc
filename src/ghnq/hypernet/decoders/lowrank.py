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

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.sliced_linear import Corner, Rows, corner_linear
from ghnq.hypernet.decoders.weight_decoder import PieceDecoder, Shape4, centre, modulation_of, own_depthwise
from ghnq.hypernet.tiling import Filling, fill


class FactorDecoder(nn.Module):
    """Embeddings [S, D] of a group -> weights [S, O, I, K, K] at most as large as `max_shape`."""

    def __init__(self, *, hidden: int, widths: tuple[int, int], rank: int, max_shape: Shape4, centred: bool) -> None:
        super().__init__()
        self.max_shape, self.rank, self.centred = max_shape, rank, centred
        self.inner = nn.Linear(hidden, widths[0])
        self.outer = nn.Linear(widths[0], widths[1])
        self.core = nn.Linear(widths[1], 2 * rank * rank)
        self.out = nn.Linear(rank, max_shape[0] * max_shape[2])
        self.into = nn.Linear(rank, max_shape[1] * max_shape[3])

    def forward(
        self, groups: Sequence[Tensor], shapes: Sequence[Shape4], fillings: Sequence[Filling | None] | None = None
    ) -> list[Tensor]:
        """shapes: per group (O, I, K, K), none larger than `max_shape`. fillings: what then becomes of the weights."""
        hidden = torch.relu(self.outer(torch.relu(self.inner(torch.cat(list(groups))))))
        core = torch.relu(self.core(hidden)).view(-1, 2, self.rank, self.rank)
        rows, columns = (core[:, i].flatten(0, 1) for i in (0, 1))
        sizes = [len(g) for g in groups]
        left = self._factors(rows, sizes, [(o, h) for o, _, h, _ in shapes], self.out, self.max_shape[0::2])
        right = self._factors(columns, sizes, [(i, w) for _, i, _, w in shapes], self.into, self.max_shape[1::2])
        products = [_product(a, b, shape) for a, b, shape in zip(left, right, shapes, strict=True)]
        if fillings is None:
            return products
        return [p if filling is None else fill(p, filling) for p, filling in zip(products, fillings, strict=True)]

    def _factors(
        self, rows: Tensor, sizes: Sequence[int], corners: Sequence[Corner], layer: nn.Linear, grid: Corner
    ) -> list[Tensor]:
        """Per group a factor [S, R, channels * K] from rows [S of all groups * R, R]."""
        wanted = [
            Rows(size * self.rank, corner, corner, (0, *centre(grid[1:], corner[1:])) if self.centred else ())
            for size, corner in zip(sizes, corners, strict=True)
        ]
        factors = corner_linear(rows, wanted, layer.weight, layer.bias, grid)
        return [f.reshape(size, self.rank, -1) for f, size in zip(factors, sizes, strict=True)]


def _product(left: Tensor, right: Tensor, shape: Shape4) -> Tensor:
    """[S, R, O * K] and [S, R, I * K] -> [S, O, I, K, K]."""
    o, i, h, w = shape
    return torch.bmm(left.transpose(1, 2), right).view(-1, o, h, i, w).permute(0, 1, 3, 2, 4)


class LowRankDecoder(PieceDecoder):
    """Every weight, the classification layer's too, from a pair of factors."""

    @classmethod
    def from_config(cls, config: GHNConfig) -> LowRankDecoder:
        def factors(max_shape: Shape4) -> FactorDecoder:
            return FactorDecoder(
                hidden=config.hidden,
                widths=config.decoder_widths,
                rank=config.rank,
                max_shape=max_shape,
                centred=config.kernel == "centre",
            )

        own = own_depthwise(config, factors)
        return cls(
            max_shape=config.max_shape, dense=factors(config.max_shape), depthwise=own, modulation=modulation_of(config)
        )
