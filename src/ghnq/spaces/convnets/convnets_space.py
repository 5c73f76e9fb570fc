"""The ConvNets space as a `Space`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, SupportsIndex, get_args

from ghnq.spaces.convnets.literals import Family
from ghnq.spaces.convnets.spec_cost import ConvNetCost, cost
from ghnq.spaces.convnets.spec_text import layout
from ghnq.spaces.convnets.specs import Spec
from ghnq.spaces.convnets.splits import SPLITS, spec

if TYPE_CHECKING:
    import torch
    from torch import nn


class ConvNets:
    """Small convolutional networks for edge devices; see `ghnq.spaces.Space` for the interface."""

    name = "convnets"
    splits: Mapping[str, int] = SPLITS
    families: tuple[str, ...] = get_args(Family)

    def spec(self, split: str, index: SupportsIndex) -> Spec:
        """Returns a member of a split."""
        return spec(split, index)

    def spec_from_json(self, text: str | bytes) -> Spec:
        """Returns the spec that `Spec.to_json` wrote."""
        return Spec.from_json(text)

    def traits(self, spec: Spec) -> Mapping[str, str | int]:
        """Returns `family` and `stem_stride`."""
        return {"family": spec.family, "stem_stride": spec.stem.stride}

    def layout(self, spec: Spec) -> Iterable[tuple[str, str]]:
        """Yields the lines (label, text) that describe a spec, from the image to the logits."""
        return layout(spec)

    def cost(
        self, spec: Spec, *, input_shape: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10
    ) -> ConvNetCost:
        """Counts a spec for images of shape (channels, height, width)."""
        return cost(spec, input_shape=input_shape, num_classes=num_classes)

    def build(
        self,
        spec: Spec,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        device: torch.device | str | None = None,
        running_statistics: bool = True,
    ) -> nn.Module:
        """Builds the network of a spec."""
        from ghnq.spaces.convnets.networks import build  # torch is imported only by what needs it

        return build(
            spec,
            in_channels=in_channels,
            num_classes=num_classes,
            device=device,
            running_statistics=running_statistics,
        )


SPACE = ConvNets()
