"""What every decoder of weights has in common: requests in, dense and depthwise weights decoded apart, in pieces.

Dimensions: S slots of a group, D hidden, O/I out- and in-channels, K kernel height or width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.channel_modulation import ChannelModulation
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

    def __init__(
        self,
        *,
        max_shape: Shape4,
        dense: nn.Module,
        depthwise: nn.Module | None,
        modulation: ChannelModulation | None = None,
    ) -> None:
        super().__init__()
        self.max_shape = max_shape
        self.dense = dense
        self.depthwise = depthwise
        self.modulation = modulation

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
        return [
            decoded[i] if self.filling(request) is None else self.modulated(decoded[i], groups[i], request)
            for i, request in enumerate(requests)
        ]

    def modulated(self, weights: Tensor, h_SD: Tensor, request: WeightRequest) -> Tensor:
        """Weights [S, O, I, K, K] with a factor for each channel where the layer is wider than `max_shape`."""
        if self.modulation is None or not self.modulates(request):
            return weights
        factors = self.modulation.factors(h_SD, request.shape, depthwise=request.depthwise)
        weights = weights * factors if torch.is_grad_enabled() else weights.mul_(factors)
        request.filling.add_identity(weights)
        return weights

    def modulates(self, request: WeightRequest) -> bool:
        """Whether a weight is wider than `max_shape` and so repeats a block whose copies are to be told apart."""
        o, i, _, _ = request.shape
        return self.modulation is not None and (o > self.max_shape[0] or i > self.max_shape[1])

    def piece(self, request: WeightRequest) -> Shape4:
        """The part of `max_shape` to compute for a weight."""
        o, i, h, w = (min(s, m) for s, m in zip(request.shape, self.max_shape, strict=True))
        return o, i, h, w

    def filling(self, request: WeightRequest) -> Filling | None:
        """How the piece is brought to the shape in the network; None where it is not yet what the network takes."""
        return replace(request.filling, identity=None) if self.modulates(request) else request.filling


def own_depthwise(config: GHNConfig, make: Callable[[Shape4], nn.Module]) -> nn.Module | None:
    """A decoder for the depthwise weights alone, where the configuration has one; make: from a largest shape."""
    o, _, h, w = config.max_shape
    return make((o, 1, h, w)) if config.depthwise == "own" else None


def modulation_of(config: GHNConfig) -> ChannelModulation | None:
    """The factors for wide layers, where the configuration asks for them."""
    if not config.channel_rank:
        return None
    return ChannelModulation(hidden=config.hidden, rank=config.channel_rank, max_kernel=config.max_shape[3])


def centre(grid: Corner, piece: Corner) -> Corner:
    """Where a piece starts in a grid so that its middle is the grid's: from o - k // 2 to o + ceil(k / 2) (GHN-3)."""
    return tuple(most // 2 - size // 2 for most, size in zip(grid, piece, strict=True))
