"""The distributions of the splits: `val` and `test` share theirs; `train` adds networks without norms and wide ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ghnq.spaces.convnets.literals import Family
from ghnq.spaces.convnets.random_draws import Categorical

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Profile:
    """The distribution of one split. Ranges include both ends.

    Attributes:
        norm: Whether convolutions are normalised.
        norm_free: The probability that a member has no norms, if others have.
        families: The probabilities of the families.
        parameters: Members outside (for 3x32x32 images and 10 classes) are drawn again; so for the following three.
        multiply_adds: For one image.
        depth: Convolutions and linear layers from image to logits.
        width: Channels of the widest state between blocks.
        width_factor: The range of a factor on all channel counts.
        blocks: The number of blocks of a stage network.
        blocks_per_stage: The number of blocks of one stage.
        concat: The probability that a block concatenates.
        num_concats: The number of blocks that concatenate.
        cells: The number of cells of a cell network.
        nodes: The number of nodes of a cell.
        long: Networks of more cells than this have at most `nodes_when_long` nodes per cell.
        nodes_when_long: See `long`.
        concat_used: The probability that a node that another one uses is concatenated as well.
    """

    norm: Literal["bn"] | None
    norm_free: float
    families: Categorical[Family]
    parameters: Range
    multiply_adds: Range
    depth: Range
    width: Range
    width_factor: tuple[float, float]
    blocks: Range
    blocks_per_stage: Range
    concat: float
    num_concats: Range
    cells: Range
    long: int
    nodes: Range
    nodes_when_long: int
    concat_used: float


IN_DISTRIBUTION = Profile(
    norm="bn",
    norm_free=0.0,
    families=Categorical({"stages": 0.58, "cells": 0.42}),
    parameters=(5_000, 1_000_000),
    multiply_adds=(500_000, 20_000_000),
    depth=(5, 36),
    width=(32, 256),
    width_factor=(1.0, 1.0),
    blocks=(3, 10),
    blocks_per_stage=(1, 4),
    concat=0.12,
    num_concats=(0, 3),
    cells=(3, 7),
    long=4,
    nodes=(1, 4),
    nodes_when_long=2,
    concat_used=0.4,
)

_TRAIN = replace(IN_DISTRIBUTION, norm_free=0.15)

PROFILES: dict[str, Profile] = {
    "train": _TRAIN,
    "val": IN_DISTRIBUTION,
    "test": IN_DISTRIBUTION,
    "deep": replace(
        IN_DISTRIBUTION,
        multiply_adds=(500_000, 60_000_000),
        parameters=(5_000, 3_000_000),
        depth=(40, 200),
        blocks=(14, 24),
        blocks_per_stage=(3, 9),
        cells=(10, 16),
        nodes=(1, 2),
        num_concats=(0, 5),
    ),
    "wide": replace(
        IN_DISTRIBUTION,
        multiply_adds=(5_000_000, 150_000_000),
        parameters=(100_000, 8_000_000),
        width=(288, 1024),
        width_factor=(3.0, 5.0),
    ),
    "dense": replace(
        IN_DISTRIBUTION,
        multiply_adds=(500_000, 60_000_000),
        parameters=(5_000, 3_000_000),
        width=(32, 512),
        blocks=(9, 18),
        blocks_per_stage=(4, 8),
        concat=0.85,
        num_concats=(6, 18),
        cells=(3, 5),
        nodes=(6, 9),
        nodes_when_long=6,
        concat_used=0.85,
    ),
    "bnfree": replace(IN_DISTRIBUTION, norm=None),
}

# Wide members of `train`: the widths of the split `wide`, at a lower cost. They take 1.6 to 1.9 times as long to train
# as the others, so training takes about a tenth longer.
WIDE_SHARE = 0.12
WIDE_TRAIN = replace(
    _TRAIN,
    multiply_adds=(500_000, 50_000_000),
    parameters=(5_000, 8_000_000),
    width=(264, 1024),
    width_factor=(2.0, 5.0),
)
