"""Draws the bodies of cell networks (as DeepNets-1M does, Knyazev et al., 2021, but every cell is alive)."""

from __future__ import annotations

from ghnq.spaces.convnets.profiles import Profile
from ghnq.spaces.convnets.random_draws import Dice, Weighted
from ghnq.spaces.convnets.specs import Cells, Edge, Genotype, repeats
from ghnq.spaces.convnets.vocabulary import CellOp
from ghnq.spaces.convnets.widths import rounded

_OPS: Weighted[CellOp] = Weighted(
    {
        "max_pool_3x3": 0.09,
        "avg_pool_3x3": 0.09,
        "skip": 0.16,
        "sep_conv_3x3": 0.14,
        "sep_conv_5x5": 0.03,
        "dil_conv_3x3": 0.09,
        "dil_conv_5x5": 0.02,
        "conv_1x1": 0.09,
        "conv_3x3": 0.2,
        "conv_5x5": 0.03,
        "conv_7x7": 0.015,
        "conv_1x7_7x1": 0.045,
    }
)
_POOLS: Weighted[CellOp] = Weighted({"max_pool_3x3": 0.5, "avg_pool_3x3": 0.5})
_FREE: Weighted[CellOp] = Weighted({"max_pool_3x3": 0.3, "avg_pool_3x3": 0.3, "skip": 0.4})
_ABSENT = 0.12  # DARTS's `none`
_POOLED_REDUCTION = 0.4
_STEM_FACTOR = 0.5  # how likely a node is about as wide as the stem, instead of narrower


def sample_cells(dice: Dice, profile: Profile, stem_stride: int, channels: int, widen: float) -> Cells:
    """Draws cells behind a stem with `channels`."""
    count = dice.integer(*profile.cells)
    most = profile.nodes[1] if count <= profile.long else profile.nodes_when_long
    nodes = dice.integer(profile.nodes[0], most)
    normal = _genotype(dice, nodes, profile.keep_concat, reduction=False, pooled=False)
    reduction = _genotype(dice, nodes, profile.keep_concat, reduction=True, pooled=dice.chance(_POOLED_REDUCTION))
    base = channels if dice.chance(_STEM_FACTOR) else max(8.0, channels * (0.5 + 0.5 * dice.number()))
    middle = base * _growth(dice)
    widths = rounded(base), rounded(middle), rounded(middle * _growth(dice))
    single = len(normal.concat) == len(reduction.concat) == 1
    preprocess = not single or dice.chance(0.5)
    return Cells(count=count, channels=widths, preprocess=preprocess, normal=normal, reduction=reduction)


def _growth(dice: Dice) -> float:
    return 1.0 if dice.chance(0.12) else 1.6 + 0.8 * dice.number()


def _genotype(dice: Dice, nodes: int, keep: float, *, reduction: bool, pooled: bool) -> Genotype:
    drawn = []
    for state in range(2, nodes + 2):
        sources = _sources(dice, state)
        edges = _edges(dice, sources, reduction, pooled)
        while repeats(edges):
            edges = _edges(dice, sources, reduction, pooled)
        drawn.append(edges)
    used = {edge.source for edges in drawn for edge in edges}
    concat = tuple(state for state in range(2, nodes + 2) if state not in used or dice.chance(keep))
    return Genotype(nodes=tuple(drawn), concat=concat)


def _sources(dice: Dice, state: int) -> tuple[int, ...]:
    """Two states before `state`, or one; the first node always takes the last cell's output."""
    first = dice.integer(0, state - 1)
    second = (first + dice.integer(1, state - 1)) % state
    if not dice.chance(_ABSENT):
        return min(first, second), max(first, second)
    return (1,) if state == 2 else (first,)


def _edges(dice: Dice, sources: tuple[int, ...], reduction: bool, pooled: bool) -> tuple[Edge, ...]:
    return tuple(Edge(op=_op(dice, source, reduction, pooled), source=source) for source in sources)


def _op(dice: Dice, source: int, reduction: bool, pooled: bool) -> CellOp:
    at_input = source < 2
    if pooled:
        return dice.weighted(_POOLS if at_input else _FREE)
    op = dice.weighted(_OPS)
    return "conv_1x1" if op == "skip" and reduction and at_input else op
