"""ConvNets: small convolutional networks for edge devices, in two families; train, val, test, four shifted splits."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ghnq.spaces.convnets.convnets_space import SPACE as SPACE
from ghnq.spaces.convnets.spec_cost import ConvNetCost as ConvNetCost
from ghnq.spaces.convnets.spec_cost import cost as cost
from ghnq.spaces.convnets.specs import Spec as Spec
from ghnq.spaces.convnets.splits import SPLITS as SPLITS
from ghnq.spaces.convnets.splits import spec as spec
from ghnq.spaces.convnets.splits import split_of_hash as split_of_hash

if TYPE_CHECKING:
    from ghnq.spaces.convnets.networks import build as build

# Specs are plain values: torch is imported only by what needs it.
_LAZY = {"build": "networks"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
