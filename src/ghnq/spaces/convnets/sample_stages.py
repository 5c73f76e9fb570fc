"""Draws the bodies of stage networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ghnq.spaces.convnets.profiles import Profile
from ghnq.spaces.convnets.random_draws import Dice, Weighted
from ghnq.spaces.convnets.specs import (
    BasicBlock,
    Block,
    BottleneckBlock,
    ConvBlock,
    InvertedBlock,
    SeparableBlock,
    Stage,
    Stages,
    join_of,
    joined,
)
from ghnq.spaces.convnets.vocabulary import Downsample, Join
from ghnq.spaces.convnets.widths import rounded

_KINDS = Weighted({"conv": 0.26, "separable": 0.16, "inverted": 0.22, "basic": 0.2, "bottleneck": 0.16})
_DENSE_KINDS = Weighted({"conv": 0.6, "separable": 0.4})
_DOWNSAMPLE: Weighted[Downsample] = Weighted({"stride": 0.6, "max_pool": 0.25, "avg_pool": 0.15})
_CONV_KERNELS: Weighted[Literal[1, 3, 5]] = Weighted({3: 0.8, 1: 0.1, 5: 0.1})
# Depthwise windows beyond 3x3 are disproportionately slow on CPUs: rare, and only where the image is small.
_DEPTHWISE_KERNELS: Weighted[Literal[3, 5, 7]] = Weighted({3: 0.78, 5: 0.15, 7: 0.07})
_EXPANSIONS: Weighted[Literal[2, 3, 4, 6]] = Weighted({2: 0.35, 3: 0.3, 4: 0.25, 6: 0.1})
_ONE_KIND = 0.7  # a stage repeats one kind of block, else each block is drawn by itself
_SUM = 0.45


def sample_stages(dice: Dice, profile: Profile, stem_stride: int, channels: int, widen: float) -> Stages | None:
    """Draws stages behind a stem with `channels`, or None where the number of blocks lies outside the profile."""
    plan = _plan(dice, stem_stride)
    counts = [dice.integer(*profile.blocks_per_stage) for _ in plan]
    if not profile.blocks[0] <= sum(counts) <= profile.blocks[1]:
        return None
    size = 32 // stem_stride
    width = (dice.integer(12, 40) if plan[0] == "none" else dice.integer(20, 56)) * widen
    stages: list[Stage] = []
    concats = 0
    for downsample, count in zip(plan, counts, strict=True):
        if stages:
            width *= 1.5 + 0.8 * dice.number() if downsample != "none" else 1 + 0.3 * dice.number()
        size = size if downsample == "none" else size // 2
        stage = _stage(dice, profile, downsample, count, channels, rounded(width), size)
        for block in stage.blocks:
            concats += join_of(block) == "concat"
            channels = joined(block, channels)
        stages.append(stage)
    if not profile.concats[0] <= concats <= profile.concats[1]:
        return None
    return Stages(stages=tuple(stages))


def _plan(dice: Dice, stem_stride: int) -> list[Downsample]:
    """How each stage starts: two or three halvings overall, stem included, and here and there a stage without one."""
    halvings = (3 if dice.chance(0.85) else 2) - (stem_stride == 2)
    plan: list[Downsample] = [dice.weighted(_DOWNSAMPLE) for _ in range(halvings)]
    if dice.chance(0.45 if stem_stride == 2 else 0.2) or len(plan) == 1:
        plan.insert(0, "none")
    if dice.chance(0.2):
        plan.append("none")
    return plan


def _stage(
    dice: Dice, profile: Profile, downsample: Downsample, count: int, channels: int, width: int, size: int
) -> Stage:
    stride = 2 if downsample == "stride" else 1
    kinds = _DENSE_KINDS if profile.concat > 0.5 else _KINDS
    kind = dice.weighted(kinds)
    blocks: list[Block] = []
    for place in range(count):
        if place and not dice.chance(_ONE_KIND):
            kind = dice.weighted(kinds)
        joins = stride == 1 and kind in ("conv", "separable") and place > 0
        block = _MAKERS[kind](dice, profile, channels, width, size, joins)
        blocks.append(block)
        channels, stride = joined(block, channels), 1
    return Stage(downsample=downsample, blocks=tuple(blocks))


def _join(dice: Dice, profile: Profile, channels: int, width: int, joins: bool) -> tuple[Join, int]:
    """The join of a block and the channels it puts out: a concatenated branch is narrow, as in DenseNet."""
    if joins and dice.chance(profile.concat):
        return "concat", rounded(width * (0.25 + 0.5 * dice.number()))
    if joins and channels == width and dice.chance(_SUM):
        return "sum", width
    return "none", width


def _depthwise_kernel(dice: Dice, channels: int, size: int) -> Literal[3, 5, 7]:
    kernel = dice.weighted(_DEPTHWISE_KERNELS)
    return kernel if size <= 8 or (size == 16 and channels <= 48) else 3


def _conv(dice: Dice, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    join, out = _join(dice, profile, channels, width, joins)
    return ConvBlock(channels=out, kernel=dice.weighted(_CONV_KERNELS), join=join)


def _separable(dice: Dice, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    join, out = _join(dice, profile, channels, width, joins)
    return SeparableBlock(channels=out, kernel=_depthwise_kernel(dice, channels, size), join=join)


def _inverted(dice: Dice, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    expansion = dice.weighted(_EXPANSIONS)
    kernel = _depthwise_kernel(dice, channels * expansion // 2, size)
    return InvertedBlock(channels=width, kernel=kernel, expansion=expansion)


def _basic(dice: Dice, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    return BasicBlock(channels=width)


def _bottleneck(dice: Dice, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    return BottleneckBlock(
        channels=width, kernel=3 if dice.chance(0.85) else 5, reduction=2 if dice.chance(0.65) else 4
    )


_MAKERS: dict[str, Callable[[Dice, Profile, int, int, int, bool], Block]] = {
    "conv": _conv,
    "separable": _separable,
    "inverted": _inverted,
    "basic": _basic,
    "bottleneck": _bottleneck,
}
