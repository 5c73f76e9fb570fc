"""The ConvNets space as decisions: what a sampler chooses, the spec it makes, and whether that belongs to the space."""

from __future__ import annotations

from typing import Literal, cast

from ghnq.search.encoding.convnets_cells import CELL_DECISIONS, decode_cells
from ghnq.search.encoding.convnets_stages import STAGE_DECISIONS, decode_stages
from ghnq.search.encoding.decisions import Choice, Decision, IntegerRange, Values, check_values
from ghnq.spaces.convnets.specs import Spec, Stem
from ghnq.spaces.convnets.widths import round_channels

_STEM_CHANNELS = IntegerRange(8, 40, 4)
DECISIONS: dict[str, Decision] = {
    "family": Choice(("stages", "cells")),
    "stem.channels": _STEM_CHANNELS,
    "stem.kernel": Choice((3, 5, 7)),
    "stem.stride": Choice((1, 2)),
    "hidden": Choice((0, 32, 48, 64, 80, 96, 112, 128)),
    **STAGE_DECISIONS,
    **CELL_DECISIONS,
}
"""The decisions of the distribution of `val` and `test`; `hidden` 0 stands for no hidden linear layer."""


def decode(values: Values) -> Spec:
    """Returns the architecture that the values make; every combination of allowed values makes one.

    Raises:
        SpaceError: The values are not those of DECISIONS.
    """
    check_values(values, DECISIONS)
    stride = cast(Literal[1, 2], values["stem.stride"])
    stem = Stem(
        channels=round_channels(int(values["stem.channels"])),
        kernel=cast(Literal[3, 5, 7], values["stem.kernel"]),
        stride=stride,
    )
    stages = values["family"] == "stages"
    body = decode_stages(values, stem.channels, stride) if stages else decode_cells(values)
    return Spec(norm="bn", stem=stem, body=body, hidden=int(values["hidden"]) or None)
