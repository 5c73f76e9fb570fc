"""The interface of a decoder of weights.

Dimensions: S slots of a group, D hidden, O/I out- and in-channels, K kernel height or width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from ghnq.hypernet.tiling import Tiling

Shape4 = tuple[int, int, int, int]


class WeightRequest(NamedTuple):
    """What is asked for a group of weights.

    Attributes:
        depthwise: Whether they belong to depthwise convolutions; then I is 1.
        classifier: Whether they belong to the classification layer; then O is the number of classes.
        tiling: Their shape (O, I, K, K), their gain, their layout, and whether an identity kernel is added.
    """

    depthwise: bool
    classifier: bool
    tiling: Tiling

    @property
    def shape(self) -> Shape4:
        """(O, I, K, K) in the network."""
        o, i, h, w = self.tiling.shape
        return o, i, h, w


class Decoder(Protocol):
    """Node embeddings -> the weights of convolutions, linear layers and the classification layer.

    A decoder is an `nn.Module`, built from a `GHNConfig` by its entry in `DECODERS`. It must accept every shape, also
    channels and kernels larger than `config.max_shape`, and any number of groups but none.
    """

    def forward(self, groups: Sequence[Tensor], requests: Sequence[WeightRequest]) -> list[Tensor]:
        """Predicts the weights of all groups.

        Args:
            groups: For each group the embeddings [S, D] of the nodes that own its weights.
            requests: For each group what is asked for; all weights of a group have one shape.

        Returns:
            For each group, in order, a tensor [S, O, I, K, K] with `O, I, K, K = request.shape`, of the type and device
            of the embeddings. It has the gain of `request.tiling`, and its identity kernel; the layout is only a hint.
            No memory is shared with the embeddings, the decoder's parameters, or another group.

            Slot s depends on embedding s and on the decoder's parameters, and on nothing else: not on the other slots
            and groups. The weights are differentiable once with respect to both.
        """
        ...

    def __call__(self, groups: Sequence[Tensor], requests: Sequence[WeightRequest]) -> list[Tensor]:
        """Calls `forward`, as of every `nn.Module`."""
        ...


class BlockDecoder(Protocol):
    """Node embeddings -> blocks at most as large as `max_shape`: the part of a `TiledDecoder` that decoders differ in.

    A block decoder is an `nn.Module`.
    """

    def forward(
        self, groups: Sequence[Tensor], shapes: Sequence[Shape4], tilings: Sequence[Tiling | None] | None = None
    ) -> list[Tensor]:
        """Predicts blocks.

        Args:
            groups: For each group embeddings [S, D].
            shapes: For each group the shape (O, I, K, K) of its block, none larger than `max_shape`.
            tilings: For each group how its block is tiled; None: the block itself is returned.

        Returns:
            For each group a tensor [S, O, I, K, K], or [S, *tiling.shape].
        """
        ...

    def __call__(
        self, groups: Sequence[Tensor], shapes: Sequence[Shape4], tilings: Sequence[Tiling | None] | None = None
    ) -> list[Tensor]:
        """Calls `forward`, as of every `nn.Module`."""
        ...
