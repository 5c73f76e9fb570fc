"""What every decoder of weights has in common: requests in, dense and depthwise weights decoded apart, in pieces.

Dimensions: S slots of a group, D hidden, O/I out- and in-channels, K kernel height or width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.sliced_linear import Corner
from ghnq.hypernet.tiling import Filling

Shape4 = tuple[int, int, int, int]


class WeightRequest(NamedTuple):
    """What is asked for a group of weights: whether they are depthwise or of the classification layer, and the rest.

    filling: their shape in the network and how what is predicted comes to it.
    """

    depthwise: bool
    classifies: bool
    filling: Filling

    @property
    def shape(self) -> Shape4:
        """(O, I, K, K) in the network."""
        o, i, h, w = self.filling.shape
        return o, i, h, w


class PieceDecoder(nn.Module):
    """Weights of convolutions, hidden linear layers and the classification layer, none larger than `max_shape`.

    dense, depthwise: each called with embeddings [S, D], a shape, and a filling or None per group, gives per group
    [S, O, I, K, K] of that shape, or filled. Without a decoder of their own, depthwise weights are the dense ones of
    the first input channel.
    """

    def __init__(self, *, max_shape: Shape4, dense: nn.Module, depthwise: nn.Module | None) -> None:
        super().__init__()
        self.max_shape = max_shape
        self.dense = dense
        self.depthwise = depthwise

    def forward(self, groups: Sequence[Tensor], requests: Sequence[WeightRequest]) -> list[Tensor]:
        """Embeddings [S, D] and what is asked for, per group; returns [S, O, I, K, K] as the network has them."""
        decoded: dict[int, Tensor] = {}
        for decoder, depthwise in ((self.dense, False), (self.depthwise, True)):
            index = [i for i, r in enumerate(requests) if (self.depthwise is not None and r.depthwise) == depthwise]
            if decoder is None or not index:
                continue
            pieces = [self.piece(requests[i]) for i in index]
            fillings = [self.filling(requests[i]) for i in index]
            decoded.update(zip(index, decoder([groups[i] for i in index], pieces, fillings), strict=True))
        return [decoded[i] for i in range(len(requests))]

    def piece(self, request: WeightRequest) -> Shape4:
        """The part of `max_shape` to compute for a weight."""
        o, i, h, w = (min(s, m) for s, m in zip(request.shape, self.max_shape, strict=True))
        return o, i, h, w

    def filling(self, request: WeightRequest) -> Filling | None:
        """How the piece is brought to the shape in the network; None where it is not yet what the network takes."""
        return request.filling


def own_depthwise(config: GHNConfig, make: Callable[[Shape4], nn.Module]) -> nn.Module | None:
    """A decoder for the depthwise weights alone, where the configuration has one; make: from a largest shape."""
    o, _, h, w = config.max_shape
    return make((o, 1, h, w)) if config.depthwise == "own" else None


def centre(grid: Corner, piece: Corner) -> Corner:
    """Where a piece starts in a grid so that its middle is the grid's: from o - k // 2 to o + ceil(k / 2) (GHN-3)."""
    return tuple(most // 2 - size // 2 for most, size in zip(grid, piece, strict=True))
