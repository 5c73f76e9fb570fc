"""The decisions of stage networks and the body that they make.

Every decision has a value in every architecture, also where the body does not use it (blocks of an absent stage): an
encoding of constant length, which samplers can cross and mutate decision by decision.
"""

from __future__ import annotations

from typing import cast

from ghnq.search.encoding.decisions import Choice, Decision, IntegerRange, Values
from ghnq.spaces.convnets.literals import Downsample
from ghnq.spaces.convnets.specs import (
    MAX_DOWNSAMPLINGS,
    BasicBlock,
    Block,
    BottleneckBlock,
    ConvBlock,
    InvertedBlock,
    SeparableBlock,
    Stage,
    Stages,
    join_kind,
    output_channels,
)
from ghnq.spaces.convnets.widths import round_channels

STAGES = 4
BLOCKS = 4
"""The largest number of stages, and of blocks of a stage."""
CONCAT_SHARE = 0.5
"""Channels of a concatenated branch, as a share of the stage's; drawn members have 0.25 to 0.75."""
_ANY = 8  # channels of a block that stands for its kind


def _kinds() -> dict[str, Block]:
    """Returns a block of each kind, by a word that says all but its channels."""
    kinds: dict[str, Block] = {"basic": BasicBlock(channels=_ANY)}
    for join in ("none", "sum", "concat"):
        suffix = "" if join == "none" else f"_{join}"
        for kernel in (1, 3, 5):
            kinds[f"conv_{kernel}x{kernel}{suffix}"] = ConvBlock(channels=_ANY, kernel=kernel, join=join)
        for size in (3, 5, 7):
            kinds[f"separable_{size}x{size}{suffix}"] = SeparableBlock(channels=_ANY, kernel=size, join=join)
    for depthwise in (3, 5, 7):
        for expansion in (2, 3, 4, 6):
            word = f"inverted_{depthwise}x{depthwise}_expand{expansion}"
            kinds[word] = InvertedBlock(channels=_ANY, kernel=depthwise, expansion=expansion)
    for middle in (3, 5):
        for reduction in (2, 4):
            word = f"bottleneck_{middle}x{middle}_reduce{reduction}"
            kinds[word] = BottleneckBlock(channels=_ANY, kernel=middle, reduction=reduction)
    return kinds


_KINDS = _kinds()


def _decisions() -> dict[str, Decision]:
    decisions: dict[str, Decision] = {}
    for stage in range(STAGES):
        name = f"stages.{stage}"
        decisions[f"{name}.downsample"] = Choice(("none", "stride", "max_pool", "avg_pool"))
        decisions[f"{name}.channels"] = IntegerRange(8, 256, 8)
        # The first stage is never absent, so that there is a body.
        decisions[f"{name}.blocks"] = IntegerRange(1 if stage == 0 else 0, BLOCKS)
        for block in range(BLOCKS):
            decisions[f"{name}.{block}"] = Choice(tuple(_KINDS))
    return decisions


STAGE_DECISIONS = _decisions()


def decode_stages(values: Values, stem_channels: int, stem_stride: int) -> Stages:
    """Returns the stages that the values make after a stem; what cannot be is left out.

    Downsamplings beyond the third are none; a block joins its input only where it can (for a sum, if the channels are
    equal), and never as the first of a stage, as in drawn members.
    """
    halvings = int(stem_stride == 2)
    channels = stem_channels
    stages = []
    for number in range(STAGES):
        name = f"stages.{number}"
        count = int(values[f"{name}.blocks"])
        if not count:
            continue
        downsample = cast(Downsample, values[f"{name}.downsample"])
        if halvings == MAX_DOWNSAMPLINGS:
            downsample = "none"
        halvings += downsample != "none"
        width = round_channels(int(values[f"{name}.channels"]))
        blocks: list[Block] = []
        for position in range(count):
            kind = _KINDS[str(values[f"{name}.{position}"])]
            blocks.append(_block(kind, channels, width, first=position == 0))
            channels = output_channels(blocks[-1], channels)
        stages.append(Stage(downsample=downsample, blocks=tuple(blocks)))
    return Stages(stages=tuple(stages))


def _block(kind: Block, channels: int, width: int, *, first: bool) -> Block:
    """Returns a block of the kind with the stage's channels, and with its join if that is possible."""
    join = join_kind(kind)
    if join == "none":
        return kind.model_copy(update={"channels": width})
    if first or (join == "sum" and channels != width):
        return kind.model_copy(update={"channels": width, "join": "none"})
    out = round_channels(CONCAT_SHARE * width) if join == "concat" else width
    return kind.model_copy(update={"channels": out})
