"""What the decoders of weights have in common: blocks of at most `max_shape`, repeated for wider layers.

Dimensions: S slots of a group, D hidden, O/I out- and in-channels, K kernel height or width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ghnq.graph.ir import Shape
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.channel_modulation import ChannelModulation
from ghnq.hypernet.decoders.decoder import BlockDecoder, Shape4, WeightRequest
from ghnq.hypernet.tiling import Tiling, tile_block


class TiledDecoder(nn.Module):
    """A `Decoder` whose block decoders predict no more than `max_shape`, with which larger weights are tiled.

    Args:
        dense: The decoder of blocks of dense weights.
        depthwise: The decoder of blocks of depthwise weights; None: they are the dense ones of the first in-channel.
        modulation: Factors for weights with more channels than `max_shape`; None: such weights repeat their block.
    """

    def __init__(
        self,
        *,
        max_shape: Shape4,
        dense: BlockDecoder,
        depthwise: BlockDecoder | None,
        modulation: ChannelModulation | None = None,
    ) -> None:
        super().__init__()
        self.max_shape = max_shape
        self.dense = dense
        self.depthwise = depthwise
        self.modulation = modulation

    def forward(self, groups: Sequence[Tensor], requests: Sequence[WeightRequest]) -> list[Tensor]:
        """Embeddings [S, D] and requests, per group -> weights [S, O, I, K, K]; see `Decoder`."""
        decoded: dict[int, Tensor] = {}
        for decoder, depthwise in ((self.dense, False), (self.depthwise, True)):
            index = [i for i, r in enumerate(requests) if (self.depthwise is not None and r.depthwise) == depthwise]
            if decoder is None or not index:
                continue
            shapes = [self.block_shape(requests[i]) for i in index]
            tilings = [self.block_tiling(requests[i]) for i in index]
            decoded.update(zip(index, decoder([groups[i] for i in index], shapes, tilings), strict=True))
        return [
            decoded[i] if self.block_tiling(request) else self.finish(decoded[i], groups[i], request)
            for i, request in enumerate(requests)
        ]

    def block_shape(self, request: WeightRequest) -> Shape4:
        """Returns the shape of the block that is decoded for a weight."""
        o, i, h, w = (min(s, m) for s, m in zip(request.shape, self.max_shape, strict=True))
        return o, i, h, w

    def block_tiling(self, request: WeightRequest) -> Tiling | None:
        """Returns how the block decoder is to tile; None where `finish` does."""
        return None if self.modulates(request) else request.tiling

    def finish(self, block: Tensor, h_SD: Tensor, request: WeightRequest) -> Tensor:
        """Returns weights [S, O, I, K, K] from blocks [S, o, i, K, K] that were decoded without tiling."""
        if self.modulation is None or not self.modulates(request):
            return tile_block(block, request.tiling)
        return self.modulation.forward(block, h_SD, request)

    def modulates(self, request: WeightRequest) -> bool:
        """Returns whether a weight has more channels than `max_shape` and its copies of a block get factors."""
        o, i, _, _ = request.shape
        return self.modulation is not None and (o > self.max_shape[0] or i > self.max_shape[1])


def depthwise_block_decoder(config: GHNConfig, make: Callable[[Shape4], BlockDecoder]) -> BlockDecoder | None:
    """Returns a decoder for the blocks of depthwise weights, where the configuration has a separate one.

    Args:
        make: Builds a block decoder from its largest shape.
    """
    o, _, h, w = config.max_shape
    return make((o, 1, h, w)) if config.depthwise == "own" else None


def channel_modulation(config: GHNConfig) -> ChannelModulation | None:
    """Returns the factors for wide layers, where the configuration has them."""
    if not config.channel_rank:
        return None
    return ChannelModulation(hidden=config.hidden, rank=config.channel_rank, max_kernel=config.max_shape[3])


def centre_start(grid: Shape, size: Shape) -> Shape:
    """Returns where a part of a size starts in a grid to be its centre, from g // 2 - k // 2 (GHN-3)."""
    return tuple(g // 2 - s // 2 for g, s in zip(grid, size, strict=True))
