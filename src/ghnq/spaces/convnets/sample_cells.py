"""Draws the bodies of cell networks, as DeepNets-1M does (Knyazev et al., 2021), but every node is used."""

from __future__ import annotations

from ghnq.spaces.convnets.literals import CellOp
from ghnq.spaces.convnets.profiles import Profile
from ghnq.spaces.convnets.random_draws import Categorical, RandomStream
from ghnq.spaces.convnets.specs import Cells, Edge, Genotype, is_redundant
from ghnq.spaces.convnets.widths import round_channels

_OPS: Categorical[CellOp] = Categorical(
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
_POOLS: Categorical[CellOp] = Categorical({"max_pool_3x3": 0.5, "avg_pool_3x3": 0.5})
_WITHOUT_PARAMETERS: Categorical[CellOp] = Categorical({"max_pool_3x3": 0.3, "avg_pool_3x3": 0.3, "skip": 0.4})
_SINGLE_EDGE = 0.12  # DARTS's `none`
_POOLING_REDUCTION = 0.4
_STEM_WIDTH = 0.5  # probability that a node is as wide as the stem, not narrower


def sample_cells(rng: RandomStream, profile: Profile, stem_stride: int, channels: int, width_factor: float) -> Cells:
    """Draws cells after a stem with `channels`."""
    count = rng.integer(*profile.cells)
    most = profile.nodes[1] if count <= profile.long else profile.nodes_when_long
    nodes = rng.integer(profile.nodes[0], most)
    normal = _genotype(rng, nodes, profile.concat_used, reduction=False, pooled=False)
    reduction = _genotype(rng, nodes, profile.concat_used, reduction=True, pooled=rng.bernoulli(_POOLING_REDUCTION))
    base = channels if rng.bernoulli(_STEM_WIDTH) else max(8.0, channels * (0.5 + 0.5 * rng.uniform()))
    middle = base * _growth(rng)
    widths = round_channels(base), round_channels(middle), round_channels(middle * _growth(rng))
    single = len(normal.concat) == len(reduction.concat) == 1
    preprocess = not single or rng.bernoulli(0.5)
    return Cells(count=count, channels=widths, preprocess=preprocess, normal=normal, reduction=reduction)


def _growth(rng: RandomStream) -> float:
    return 1.0 if rng.bernoulli(0.12) else 1.6 + 0.8 * rng.uniform()


def _genotype(rng: RandomStream, nodes: int, keep: float, *, reduction: bool, pooled: bool) -> Genotype:
    drawn = []
    for state in range(2, nodes + 2):
        sources = _sources(rng, state)
        edges = _edges(rng, sources, reduction, pooled)
        while is_redundant(edges):
            edges = _edges(rng, sources, reduction, pooled)
        drawn.append(edges)
    used = {edge.source for edges in drawn for edge in edges}
    concat = tuple(state for state in range(2, nodes + 2) if state not in used or rng.bernoulli(keep))
    return Genotype(nodes=tuple(drawn), concat=concat)


def _sources(rng: RandomStream, state: int) -> tuple[int, ...]:
    """Draws two states before `state`, or one; the first node always takes the output of the last cell."""
    first = rng.integer(0, state - 1)
    second = (first + rng.integer(1, state - 1)) % state
    if not rng.bernoulli(_SINGLE_EDGE):
        return min(first, second), max(first, second)
    return (1,) if state == 2 else (first,)


def _edges(rng: RandomStream, sources: tuple[int, ...], reduction: bool, pooled: bool) -> tuple[Edge, ...]:
    return tuple(Edge(op=_op(rng, source, reduction, pooled), source=source) for source in sources)


def _op(rng: RandomStream, source: int, reduction: bool, pooled: bool) -> CellOp:
    at_input = source < 2
    if pooled:
        return rng.choice(_POOLS if at_input else _WITHOUT_PARAMETERS)
    op = rng.choice(_OPS)
    return "conv_1x1" if op == "skip" and reduction and at_input else op
