"""The op vocabulary: one table, the first fifteen in GHN-2's order (Knyazev et al., 2021), so that its checkpoints fit.

To add an op: one line in `_TABLE`, after the last one (the index is the row of the op embedding in every checkpoint).
"""

from __future__ import annotations

from dataclasses import dataclass

GHN2_OPS = (
    "max_pool", "avg_pool", "sep_conv", "dil_conv", "conv", "msa", "cse", "sum",
    "concat", "input", "bias", "bn", "ln", "pos_enc", "glob_avg",
)  # fmt: skip

KERNEL_OPS = ("conv", "sep_conv", "dil_conv")
"""Ops whose weight is a kernel: convolutions and linear layers."""

_WEIGHT = ("weight", "class_weight")
_BIAS = ("bias", "class_bias")
_NORM = ("norm_weight", "norm_bias")


@dataclass(frozen=True, slots=True)
class Op:
    """One op of the vocabulary.

    Attributes:
        name: The name in graphs.
        index: The row of the op embedding.
        colour: The fill colour in drawings.
        roles: The roles that parameters of such a node may have.
        summary: One line for legends and documentation.
    """

    name: str
    index: int
    colour: str
    roles: tuple[str, ...]
    summary: str


_TABLE: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("max_pool", "#f4a261", (), "max pooling"),
    ("avg_pool", "#f6c667", (), "average pooling"),
    ("sep_conv", "#2a9d8f", _WEIGHT, "grouped or depthwise convolution"),
    ("dil_conv", "#1f7a8c", _WEIGHT, "grouped and dilated convolution"),
    ("conv", "#4f8fdb", _WEIGHT, "convolution or linear layer"),
    ("msa", "#3d405b", (), "attention"),
    ("cse", "#c77dff", (), "gating by a product of two activations"),
    ("sum", "#e76f51", (), "sum of different activations"),
    ("concat", "#d1495b", (), "concatenation of different activations"),
    ("input", "#6c757d", (), "the image"),
    ("bias", "#b8c0ff", _BIAS, "bias of a convolution or linear layer"),
    ("bn", "#9bc53d", _NORM, "batch normalisation"),
    ("ln", "#5fad56", _NORM, "layer, group or instance normalisation"),
    ("pos_enc", "#a98467", ("weight", "bias"), "position embedding"),
    ("glob_avg", "#ffd166", (), "average over all positions"),
    ("other", "#8d99ae", ("weight", "bias", "norm_weight", "norm_bias"), "anything else with a parameter: shape only"),
)

OPS: dict[str, Op] = {name: Op(name, i, colour, roles, text) for i, (name, colour, roles, text) in enumerate(_TABLE)}
