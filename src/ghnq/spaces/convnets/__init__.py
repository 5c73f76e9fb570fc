"""ConvNets: small convolutional networks for edge devices, in two families; train, val, test, four shifted splits."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ghnq.spaces.convnets.cost import Cost as Cost
from ghnq.spaces.convnets.cost import cost as cost
from ghnq.spaces.convnets.description import Description as Description
from ghnq.spaces.convnets.description import describe as describe
from ghnq.spaces.convnets.description import summary as summary
from ghnq.spaces.convnets.specs import Spec as Spec
from ghnq.spaces.convnets.splits import SPLITS as SPLITS
from ghnq.spaces.convnets.splits import owner as owner
from ghnq.spaces.convnets.splits import spec as spec

if TYPE_CHECKING:
    from ghnq.spaces.convnets.assembly import build as build
    from ghnq.spaces.convnets.drawing import figure as figure
    from ghnq.spaces.convnets.drawing import ops_table as ops_table
    from ghnq.spaces.convnets.drawing import table as table

# Specs are plain values: torch and rich are waited for only by what needs them.
_LATER = {"build": "assembly", "figure": "drawing", "ops_table": "drawing", "table": "drawing"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
