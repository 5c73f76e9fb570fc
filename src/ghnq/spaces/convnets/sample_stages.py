"""Draws the bodies of stage networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ghnq.spaces.convnets.literals import Downsample, Join
from ghnq.spaces.convnets.profiles import Profile
from ghnq.spaces.convnets.random_draws import Categorical, RandomStream
from ghnq.spaces.convnets.specs import (
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

_KINDS = Categorical({"conv": 0.26, "separable": 0.16, "inverted": 0.22, "basic": 0.2, "bottleneck": 0.16})
_DENSE_KINDS = Categorical({"conv": 0.6, "separable": 0.4})
_DOWNSAMPLE: Categorical[Downsample] = Categorical({"stride": 0.6, "max_pool": 0.25, "avg_pool": 0.15})
_CONV_KERNELS: Categorical[Literal[1, 3, 5]] = Categorical({3: 0.8, 1: 0.1, 5: 0.1})
# Depthwise kernels larger than 3x3 are disproportionately slow on CPUs: rare, and only for small activations.
_DEPTHWISE_KERNELS: Categorical[Literal[3, 5, 7]] = Categorical({3: 0.78, 5: 0.15, 7: 0.07})
_EXPANSIONS: Categorical[Literal[2, 3, 4, 6]] = Categorical({2: 0.35, 3: 0.3, 4: 0.25, 6: 0.1})
_SAME_KIND = 0.7  # probability that a block has the kind of the one before it
_SUM = 0.45


def sample_stages(
    rng: RandomStream, profile: Profile, stem_stride: int, channels: int, width_factor: float
) -> Stages | None:
    """Draws stages after a stem with `channels`; returns None if the number of blocks is outside the profile."""
    plan = _plan(rng, stem_stride)
    counts = [rng.integer(*profile.blocks_per_stage) for _ in plan]
    if not profile.blocks[0] <= sum(counts) <= profile.blocks[1]:
        return None
    size = 32 // stem_stride
    width = (rng.integer(12, 40) if plan[0] == "none" else rng.integer(20, 56)) * width_factor
    stages: list[Stage] = []
    concats = 0
    for downsample, count in zip(plan, counts, strict=True):
        if stages:
            width *= 1.5 + 0.8 * rng.uniform() if downsample != "none" else 1 + 0.3 * rng.uniform()
        size = size if downsample == "none" else size // 2
        stage = _stage(rng, profile, downsample, count, channels, round_channels(width), size)
        for block in stage.blocks:
            concats += join_kind(block) == "concat"
            channels = output_channels(block, channels)
        stages.append(stage)
    if not profile.num_concats[0] <= concats <= profile.num_concats[1]:
        return None
    return Stages(stages=tuple(stages))


def _plan(rng: RandomStream, stem_stride: int) -> list[Downsample]:
    """Draws how each stage starts: two or three downsamplings in all, with the stem, and at times a stage without."""
    halvings = (3 if rng.bernoulli(0.85) else 2) - (stem_stride == 2)
    plan: list[Downsample] = [rng.choice(_DOWNSAMPLE) for _ in range(halvings)]
    if rng.bernoulli(0.45 if stem_stride == 2 else 0.2) or len(plan) == 1:
        plan.insert(0, "none")
    if rng.bernoulli(0.2):
        plan.append("none")
    return plan


def _stage(
    rng: RandomStream, profile: Profile, downsample: Downsample, count: int, channels: int, width: int, size: int
) -> Stage:
    stride = 2 if downsample == "stride" else 1
    kinds = _DENSE_KINDS if profile.concat > 0.5 else _KINDS
    kind = rng.choice(kinds)
    blocks: list[Block] = []
    for position in range(count):
        if position and not rng.bernoulli(_SAME_KIND):
            kind = rng.choice(kinds)
        joins = stride == 1 and kind in ("conv", "separable") and position > 0
        block = _BLOCKS[kind](rng, profile, channels, width, size, joins)
        blocks.append(block)
        channels, stride = output_channels(block, channels), 1
    return Stage(downsample=downsample, blocks=tuple(blocks))


def _join(rng: RandomStream, profile: Profile, channels: int, width: int, joins: bool) -> tuple[Join, int]:
    """Draws the join of a block and its channels; a concatenated branch is narrow, as in DenseNet."""
    if joins and rng.bernoulli(profile.concat):
        return "concat", round_channels(width * (0.25 + 0.5 * rng.uniform()))
    if joins and channels == width and rng.bernoulli(_SUM):
        return "sum", width
    return "none", width


def _depthwise_kernel(rng: RandomStream, channels: int, size: int) -> Literal[3, 5, 7]:
    kernel = rng.choice(_DEPTHWISE_KERNELS)
    return kernel if size <= 8 or (size == 16 and channels <= 48) else 3


def _conv(rng: RandomStream, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    join, out = _join(rng, profile, channels, width, joins)
    return ConvBlock(channels=out, kernel=rng.choice(_CONV_KERNELS), join=join)


def _separable(rng: RandomStream, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    join, out = _join(rng, profile, channels, width, joins)
    return SeparableBlock(channels=out, kernel=_depthwise_kernel(rng, channels, size), join=join)


def _inverted(rng: RandomStream, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    expansion = rng.choice(_EXPANSIONS)
    kernel = _depthwise_kernel(rng, channels * expansion // 2, size)
    return InvertedBlock(channels=width, kernel=kernel, expansion=expansion)


def _basic(rng: RandomStream, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    return BasicBlock(channels=width)


def _bottleneck(rng: RandomStream, profile: Profile, channels: int, width: int, size: int, joins: bool) -> Block:
    return BottleneckBlock(
        channels=width, kernel=3 if rng.bernoulli(0.85) else 5, reduction=2 if rng.bernoulli(0.65) else 4
    )


_BLOCKS: dict[str, Callable[[RandomStream, Profile, int, int, int, bool], Block]] = {
    "conv": _conv,
    "separable": _separable,
    "inverted": _inverted,
    "basic": _basic,
    "bottleneck": _bottleneck,
}
