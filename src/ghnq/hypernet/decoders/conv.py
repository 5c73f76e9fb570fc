"""GHN-2's convolutional decoder: an embedding becomes kernel positions, each position an (out x in) matrix.

    h -> linear -> ReLU -> [C, k, k] -> 1x1 conv -> ReLU -> 1x1 conv -> [out * in, k, k]

Only the kernel positions and channels that a weight needs are computed. Weights of the classification layer come from
the same matrix at one position, mapped from `out` to the number of classes (arXiv 2110.13100, section 4; arXiv
1810.05749, section 4.2).

Dimensions: S slots of a group, D hidden, C and F widths inside, O/I out- and in-channels, K kernel height or width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.graph.ir import Shape
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.channel_modulation import ChannelModulation
from ghnq.hypernet.decoders.decoder import BlockDecoder, Shape4, WeightRequest
from ghnq.hypernet.decoders.sliced_linear import RowGroup, round_to_strip, round_up, sliced_linear
from ghnq.hypernet.decoders.tiled_decoder import (
    TiledDecoder,
    centre_start,
    channel_modulation,
    depthwise_block_decoder,
)
from ghnq.hypernet.tiling import Tiling


class PositionDecoder(nn.Module):
    """A `BlockDecoder`: embeddings [S, D] of a group -> blocks [S, O, I, K, K] at most as large as `max_shape`.

    Args:
        centred: Whether a smaller kernel is the centre of the largest one (GHN-3), not its first rows and columns
            (GHN-2).
        normalised: Whether a layer norm follows each ReLU. As published, the values behind a ReLU share a mean, which
            makes half of the variance of a new decoder's weights common to all kernel positions, a blur; and weights
            begin at a tenth of He's scale and grow from there, against a learning rate that does not.
    """

    def __init__(
        self, *, hidden: int, widths: tuple[int, int], max_shape: Shape4, centred: bool, normalised: bool
    ) -> None:
        super().__init__()
        self.centred, self.normalised = centred, normalised
        self.max_shape = max_shape
        self.positions = nn.Linear(hidden, widths[0] * max_shape[2] * max_shape[3])
        self.mix = nn.Linear(widths[0], widths[1])
        self.matrix = nn.Linear(widths[1], max_shape[0] * max_shape[1])
        self.width = widths[0]
        if normalised:
            nn.init.normal_(self.matrix.weight, std=widths[1] ** -0.5)
            nn.init.zeros_(self.matrix.bias)

    def forward(
        self, groups: Sequence[Tensor], shapes: Sequence[Shape4], tilings: Sequence[Tiling | None] | None = None
    ) -> list[Tensor]:
        """Embeddings [S, D] and shapes (O, I, K, K), per group -> blocks, or tiled weights; see `BlockDecoder`."""
        out, in_, height, width = self.max_shape
        computed = [(round_to_strip(o, out), round_up(i, in_)) for o, i, _, _ in shapes]
        # Groups of one kernel size share the first product, groups of similar matrices a block of the second.
        by_kernel = sorted(range(len(groups)), key=lambda g: shapes[g][2:])
        by_matrix = sorted(range(len(groups)), key=lambda g: (computed[g][1], -computed[g][0]))
        kernels = [(self.width, *shapes[g][2:]) for g in by_kernel]
        positions = sliced_linear(
            torch.cat([groups[g] for g in by_kernel]),
            [RowGroup(len(groups[g]), k, k, self._start(k)) for g, k in zip(by_kernel, kernels, strict=True)],
            self.positions.weight,
            self.positions.bias,
            (self.width, height, width),
        )
        rows = {g: x.flatten(2).transpose(1, 2).flatten(0, 1) for g, x in zip(by_kernel, positions, strict=True)}
        mixed = self._active(self.mix(self._active(torch.cat([rows[g] for g in by_matrix]))))
        epilogues = [_Kernels(t, *shapes[g][2:]) for g, t in enumerate(tilings or [None] * len(groups))]
        matrices = sliced_linear(
            mixed,
            [RowGroup(len(rows[g]), shapes[g][:2], computed[g], epilogue=epilogues[g]) for g in by_matrix],
            self.matrix.weight,
            self.matrix.bias,
            (out, in_),
        )
        decoded = dict(zip(by_matrix, matrices, strict=True))
        return [decoded[g] for g in range(len(groups))]

    def _active(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return F.layer_norm(x, x.shape[-1:]) if self.normalised else x

    def _start(self, kernel: Shape) -> Shape:
        """Returns where a kernel (C, height, width) starts in the grid."""
        return (0, *centre_start(self.max_shape[2:], kernel[1:])) if self.centred else ()


@dataclass(frozen=True, slots=True)
class _Kernels:
    """An epilogue: matrices [S * H * W, O, I], one for each position of a kernel -> kernels [S, O, I, H, W], tiled."""

    tiling: Tiling | None
    height: int
    width: int

    def forward(self, part: Tensor) -> Tensor:
        kernels = self._view(part)
        return kernels if self.tiling is None else self.tiling.forward(kernels)

    def backward(self, grad: Tensor, part: Tensor) -> None:
        kernels = self._view(part)
        if self.tiling is None:
            kernels.copy_(grad)
        else:
            self.tiling.backward(grad, kernels)

    def _view(self, part: Tensor) -> Tensor:
        grid = part.view(-1, self.height, self.width, *part.shape[1:])
        return grid.permute(0, 3, 4, 1, 2)


class ConvDecoder(TiledDecoder):
    """A `Decoder` with a `PositionDecoder` for blocks; the classification layer is mapped to its classes."""

    def __init__(
        self,
        *,
        max_shape: Shape4,
        num_classes: int,
        dense: BlockDecoder,
        depthwise: BlockDecoder | None,
        modulation: ChannelModulation | None = None,
    ) -> None:
        super().__init__(max_shape=max_shape, dense=dense, depthwise=depthwise, modulation=modulation)
        self.classes = nn.Linear(max_shape[0], num_classes)

    @classmethod
    def from_config(cls, config: GHNConfig) -> ConvDecoder:
        """Builds the decoder that a configuration describes."""

        def positions(max_shape: Shape4) -> PositionDecoder:
            return PositionDecoder(
                hidden=config.hidden,
                widths=config.decoder_widths,
                max_shape=max_shape,
                centred=config.kernel == "centre",
                normalised=config.decoder_norm,
            )

        dense = positions(config.max_shape)
        depthwise = depthwise_block_decoder(config, positions)
        return cls(
            max_shape=config.max_shape,
            num_classes=config.num_classes,
            dense=dense,
            depthwise=depthwise,
            modulation=channel_modulation(config),
        )

    def block_shape(self, request: WeightRequest) -> Shape4:
        """Returns the shape of the block; all out-channels where they are mapped to classes."""
        o, i, h, w = super().block_shape(request)
        return (self.max_shape[0] if request.classifier else o, i, h, w)

    def block_tiling(self, request: WeightRequest) -> Tiling | None:
        """Returns how the block decoder is to tile; None where the out-channels are first mapped to classes."""
        return None if request.classifier else super().block_tiling(request)

    def finish(self, block: Tensor, h_SD: Tensor, request: WeightRequest) -> Tensor:
        """Returns weights [S, O, I, K, K] from blocks that were decoded without tiling."""
        return super().finish(self._to_classes(block) if request.classifier else block, h_SD, request)

    def _to_classes(self, block: Tensor) -> Tensor:
        """[S, O, I, 1, 1] -> [S, classes, I, 1, 1]."""
        return torch.as_tensor(self.classes(torch.relu(block).transpose(1, 4)).transpose(1, 4))
