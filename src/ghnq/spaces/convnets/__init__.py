"""ConvNets: small convolutional networks for edge devices, in two families; train, val, test, four shifted splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghnq.spaces.convnets.cost import Cost as Cost
from ghnq.spaces.convnets.cost import cost as cost
from ghnq.spaces.convnets.specs import Spec as Spec
from ghnq.spaces.convnets.splits import SPLITS as SPLITS
from ghnq.spaces.convnets.splits import owner as owner
from ghnq.spaces.convnets.splits import spec as spec

if TYPE_CHECKING:
    from ghnq.spaces.convnets.assembly import build as build


def __getattr__(name: str) -> object:
    # Specs are plain values: only what builds networks needs torch, so only that waits for it.
    if name == "build":
        from ghnq.spaces.convnets.assembly import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
