"""What distinguishes the splits: one profile each; `val` and `test` share theirs, and `train` but for norms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ghnq.spaces.convnets.literals import Family
from ghnq.spaces.convnets.random_draws import Categorical

Range = tuple[int, int]  # both ends included


@dataclass(frozen=True, slots=True)
class Profile:
    """The distribution of one split.

    norm: whether convolutions are normalised; norm_free: the share of members without norms where others have them.
    parameters, multiply_adds: members outside (for 3x32x32 images and 10 classes) are drawn again.
    depth: bounds on the weighted layers from image to logits. width: bounds on the widest state between blocks.
    widen: factor on all channel counts.
    blocks: of a stage network, all stages together; blocks_per_stage: of one stage.
    concat: how likely a block concatenates; concats: bounds on how many blocks do.
    cells: of a cell network. nodes: of a cell; nodes_when_long: upper bound for networks of more than `long` cells.
    keep_concat: how likely a node that another one uses is concatenated as well.
    """

    norm: Literal["bn"] | None
    norm_free: float
    families: Categorical[Family]
    parameters: Range
    multiply_adds: Range
    depth: Range
    width: Range
    widen: tuple[float, float]
    blocks: Range
    blocks_per_stage: Range
    concat: float
    concats: Range
    cells: Range
    long: int
    nodes: Range
    nodes_when_long: int
    keep_concat: float


IN_DISTRIBUTION = Profile(
    norm="bn",
    norm_free=0.0,
    families=Categorical({"stages": 0.58, "cells": 0.42}),
    parameters=(5_000, 1_000_000),
    multiply_adds=(500_000, 20_000_000),
    depth=(5, 36),
    width=(32, 256),
    widen=(1.0, 1.0),
    blocks=(3, 10),
    blocks_per_stage=(1, 4),
    concat=0.12,
    concats=(0, 3),
    cells=(3, 7),
    long=4,
    nodes=(1, 4),
    nodes_when_long=2,
    keep_concat=0.4,
)

PROFILES: dict[str, Profile] = {
    "train": replace(IN_DISTRIBUTION, norm_free=0.15),
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
        concats=(0, 5),
    ),
    "wide": replace(
        IN_DISTRIBUTION,
        multiply_adds=(5_000_000, 150_000_000),
        parameters=(100_000, 8_000_000),
        width=(288, 1024),
        widen=(3.0, 5.0),
    ),
    "dense": replace(
        IN_DISTRIBUTION,
        multiply_adds=(500_000, 60_000_000),
        parameters=(5_000, 3_000_000),
        width=(32, 512),
        blocks=(9, 18),
        blocks_per_stage=(4, 8),
        concat=0.85,
        concats=(6, 18),
        cells=(3, 5),
        nodes=(6, 9),
        nodes_when_long=6,
        keep_concat=0.85,
    ),
    "bnfree": replace(IN_DISTRIBUTION, norm=None),
}
