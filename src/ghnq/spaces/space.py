"""The interface of a search space. `tests/spaces/tiny_space.py` is a complete example in a few lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, SupportsIndex, TypeVar

from ghnq.spaces.cost import Cost

if TYPE_CHECKING:
    import torch
    from torch import nn


class Spec(Protocol):
    """The specification of one architecture: an immutable, hashable, picklable value without tensors."""

    @property
    def structure_hash(self) -> str:
        """A hexadecimal hash. Equal structures have equal hashes, in every process and every version."""

    def to_json(self) -> str:
        """Returns the canonical JSON form, from which `Space.spec_from_json` makes an equal spec."""


S = TypeVar("S", bound=Spec)


class Space(Protocol[S]):
    """A search space: splits of architectures, and how to build their networks.

    A space is registered with `ghnq.spaces.register` and asked for by name. Names of its members are written
    `name/split/index`.

    Attributes:
        name: A short name without `/`. Recipes and checkpoints refer to the space by it.
        splits: The number of members of each split. Training takes its architectures from `train`, validation from
            `val`; `test` is the default split of an evaluation. These three are in distribution, any other is not. No
            structure hash may occur in two splits.
        families: The kinds of architectures, the usual one first; at least one.
    """

    @property
    def name(self) -> str: ...

    @property
    def splits(self) -> Mapping[str, int]: ...

    @property
    def families(self) -> tuple[str, ...]: ...

    def spec(self, split: str, index: SupportsIndex) -> S:
        """Returns a member of a split.

        This must be a pure function: the same spec in every process and on every machine.

        Raises:
            SpaceError: The split or the index does not exist.
        """

    def spec_from_json(self, text: str | bytes) -> S:
        """Returns the spec that `Spec.to_json` wrote.

        Raises:
            SpaceError: The text is not a spec of this space; the message names the wrong field.
        """

    def traits(self, spec: S) -> Mapping[str, str | int]:
        """Returns properties by which a curriculum selects architectures: `family`, and others of the space's own."""

    def layout(self, spec: S) -> Iterable[tuple[str, str]]:
        """Yields a description of the architecture in lines of (label, text), from the input to the logits."""

    def cost(self, spec: S, *, input_shape: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10) -> Cost:
        """Counts parameters, multiply-adds and graph nodes, for images of shape (channels, height, width).

        Training balances processes by it, so it should be fast. `Cost.from_graph` is slower, but always available.
        """

    def build(
        self,
        spec: S,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        device: torch.device | str | None = None,
        running_statistics: bool = True,
    ) -> nn.Module:
        """Builds the network of a spec: images [B, in_channels, H, W] -> logits [B, num_classes].

        The network must work for images from 8x8, have static control flow, and be traceable (`ghnq.trace`).

        Args:
            in_channels: Channels of the images.
            num_classes: Number of logits.
            device: Where parameters are; with `meta`, nothing may be allocated or initialised.
            running_statistics: Whether batch norms keep running statistics; if not, they always use the batch's.
        """
