"""The literal types of the ConvNets space."""

from __future__ import annotations

from typing import Literal, get_args

Family = Literal["stages", "cells"]
Join = Literal["none", "sum", "concat"]
Downsample = Literal["none", "stride", "max_pool", "avg_pool"]
CellOp = Literal[
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_1x1",
    "conv_3x3",
    "conv_5x5",
    "conv_7x7",
    "conv_1x7_7x1",
]
CELL_OPS: tuple[CellOp, ...] = get_args(CellOp)
