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

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.channel_modulation import ChannelModulation
from ghnq.hypernet.decoders.sliced_linear import Corner, Rows, corner_linear, round_to_strip, round_up
from ghnq.hypernet.decoders.weight_decoder import (
    PieceDecoder,
    Shape4,
    WeightRequest,
    centre,
    modulation_of,
    own_depthwise,
)
from ghnq.hypernet.tiling import Filling, fill


class PositionDecoder(nn.Module):
    """Embeddings [S, D] of a group -> weights [S, O, I, K, K] at most as large as `max_shape`.

    centred: a smaller kernel is the centre of the largest one (GHN-3), not its first rows and columns (GHN-2).
    normalised: layer norms behind both ReLUs. As published, the values behind a ReLU share a mean, which makes half of
        the variance of a new decoder's weights common to all kernel positions, a blur; and weights begin at a tenth of
        He's scale and grow from there, against a learning rate that does not.
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
        self, groups: Sequence[Tensor], shapes: Sequence[Shape4], fillings: Sequence[Filling | None] | None = None
    ) -> list[Tensor]:
        """shapes: per group (O, I, K, K), none larger than `max_shape`. fillings: what then becomes of the weights."""
        out, in_, height, width = self.max_shape
        computed = [(round_to_strip(o, out), round_up(i, in_)) for o, i, _, _ in shapes]
        # Groups of one kernel size share the first product, groups of similar matrices a block of the second.
        by_kernel = sorted(range(len(groups)), key=lambda g: shapes[g][2:])
        by_matrix = sorted(range(len(groups)), key=lambda g: (computed[g][1], -computed[g][0]))
        kernels = [(self.width, *shapes[g][2:]) for g in by_kernel]
        positions = corner_linear(
            torch.cat([groups[g] for g in by_kernel]),
            [Rows(len(groups[g]), k, k, self._start(k)) for g, k in zip(by_kernel, kernels, strict=True)],
            self.positions.weight,
            self.positions.bias,
            (self.width, height, width),
        )
        rows = {g: x.flatten(2).transpose(1, 2).flatten(0, 1) for g, x in zip(by_kernel, positions, strict=True)}
        mixed = self._active(self.mix(self._active(torch.cat([rows[g] for g in by_matrix]))))
        finished = [_Kernels(f, *shapes[g][2:]) for g, f in enumerate(fillings or [None] * len(groups))]
        matrices = corner_linear(
            mixed,
            [Rows(len(rows[g]), shapes[g][:2], computed[g], finish=finished[g]) for g in by_matrix],
            self.matrix.weight,
            self.matrix.bias,
            (out, in_),
        )
        decoded = dict(zip(by_matrix, matrices, strict=True))
        return [decoded[g] for g in range(len(groups))]

    def _active(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return F.layer_norm(x, x.shape[-1:]) if self.normalised else x

    def _start(self, kernel: Corner) -> Corner:
        """Where a kernel (C, height, width) lies in the grid."""
        return (0, *centre(self.max_shape[2:], kernel[1:])) if self.centred else ()


@dataclass(frozen=True, slots=True)
class _Kernels:
    """Matrices [S * H * W, O, I], one for each position of a kernel, become kernels [S, O, I, H, W], or filled ones."""

    filling: Filling | None
    height: int
    width: int

    def forward(self, part: Tensor) -> Tensor:
        kernels = self._view(part)
        return kernels if self.filling is None else self.filling.forward(kernels)

    def backward(self, grad: Tensor, part: Tensor) -> None:
        kernels = self._view(part)
        if self.filling is None:
            kernels.copy_(grad)
        else:
            self.filling.backward(grad, kernels)

    def _view(self, part: Tensor) -> Tensor:
        grid = part.view(-1, self.height, self.width, *part.shape[1:])
        return grid.permute(0, 3, 4, 1, 2)


class ConvDecoder(PieceDecoder):
    """Weights of convolutions and hidden linear layers; the classification layer's are mapped to its classes."""

    def __init__(
        self,
        *,
        max_shape: Shape4,
        num_classes: int,
        dense: nn.Module,
        depthwise: nn.Module | None,
        modulation: ChannelModulation | None = None,
    ) -> None:
        super().__init__(max_shape=max_shape, dense=dense, depthwise=depthwise, modulation=modulation)
        self.classes = nn.Linear(max_shape[0], num_classes)

    @classmethod
    def from_config(cls, config: GHNConfig) -> ConvDecoder:
        def positions(max_shape: Shape4) -> PositionDecoder:
            return PositionDecoder(
                hidden=config.hidden,
                widths=config.decoder_widths,
                max_shape=max_shape,
                centred=config.kernel == "centre",
                normalised=config.decoder_norm,
            )

        dense = positions(config.max_shape)
        own = own_depthwise(config, positions)
        return cls(
            max_shape=config.max_shape,
            num_classes=config.num_classes,
            dense=dense,
            depthwise=own,
            modulation=modulation_of(config),
        )

    def forward(self, groups: Sequence[Tensor], requests: Sequence[WeightRequest]) -> list[Tensor]:
        """Embeddings [S, D] and what is asked for, per group; returns [S, O, I, K, K] as the network has them."""
        decoded = super().forward(groups, requests)
        return [
            self._classifiers(d, h, r) if r.classifies else d for d, h, r in zip(decoded, groups, requests, strict=True)
        ]

    def piece(self, request: WeightRequest) -> Shape4:
        """The part of `max_shape` to compute: all out-channels where they are yet to become classes."""
        o, i, h, w = super().piece(request)
        return (self.max_shape[0] if request.classifies else o, i, h, w)

    def filling(self, request: WeightRequest) -> Filling | None:
        """None where the out-channels are yet to become classes."""
        return None if request.classifies else super().filling(request)

    def _classifiers(self, matrix: Tensor, h_SD: Tensor, request: WeightRequest) -> Tensor:
        """[S, O, I, 1, 1] -> the weights [S, classes, I, 1, 1] of the classification layer."""
        return self.modulated(fill(self._classify(matrix), request.filling), h_SD, request)

    def _classify(self, matrix: Tensor) -> Tensor:
        """[S, O, I, 1, 1] -> [S, classes, I, 1, 1]."""
        return torch.as_tensor(self.classes(torch.relu(matrix).transpose(1, 4)).transpose(1, 4))
