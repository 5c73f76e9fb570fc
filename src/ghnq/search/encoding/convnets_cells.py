"""The decisions of cell networks and the body that they make; as in `convnets_stages`, of constant length."""

from __future__ import annotations

from itertools import combinations
from typing import cast

from ghnq.search.encoding.decisions import Choice, Decision, IntegerRange, Values
from ghnq.spaces.convnets.literals import CELL_OPS, CellOp
from ghnq.spaces.convnets.profiles import IN_DISTRIBUTION
from ghnq.spaces.convnets.specs import Cells, Edge, Genotype, is_redundant
from ghnq.spaces.convnets.widths import round_channels

NODES = IN_DISTRIBUTION.nodes[1]
"""The largest number of nodes of a cell."""
SUBSTITUTE: CellOp = "sep_conv_3x3"
"""The operation of a node that would compute nothing new."""


def _decisions() -> dict[str, Decision]:
    decisions: dict[str, Decision] = {
        "cells.count": IntegerRange(*IN_DISTRIBUTION.cells),
        "cells.nodes": IntegerRange(*IN_DISTRIBUTION.nodes),
        "cells.preprocess": Choice(("yes", "no")),
    }
    for level in range(3):
        decisions[f"cells.channels.{level}"] = IntegerRange(8, 96, 4)
    for cell in ("normal", "reduction"):
        for node in range(NODES):
            name = f"cells.{cell}.{node}"
            decisions[f"{name}.sources"] = Choice(tuple(_sources(node + 2)))
            decisions[f"{name}.concat"] = Choice(("yes", "no"))
            for edge in range(2):
                decisions[f"{name}.op.{edge}"] = Choice(CELL_OPS)
    return decisions


def _sources(state: int) -> dict[str, tuple[int, ...]]:
    """Returns the states that a node may take, one or two of those before it; the first node takes the last cell's."""
    alone = [(1,)] if state == 2 else [(source,) for source in range(state)]
    return {"+".join(map(str, states)): states for states in (*alone, *combinations(range(state), 2))}


CELL_DECISIONS = _decisions()


def decode_cells(values: Values) -> Cells:
    """Returns the cells that the values make; what cannot be is replaced by what is nearest to it.

    A node that computes nothing new gets a separable convolution; a skip from an input of a reduction cell is a 1x1
    convolution; states that no node uses are concatenated.
    """
    count = int(values["cells.count"])
    nodes = int(values["cells.nodes"])
    if count > IN_DISTRIBUTION.long:
        nodes = min(nodes, IN_DISTRIBUTION.nodes_when_long)
    normal, reduction = (_genotype(values, cell, nodes) for cell in ("normal", "reduction"))
    single = len(normal.concat) == len(reduction.concat) == 1
    widths = tuple(round_channels(int(values[f"cells.channels.{level}"])) for level in range(3))
    return Cells(
        count=count,
        channels=cast(tuple[int, int, int], widths),
        # As in drawn members: a concatenation always needs the convolution in front of the next cell.
        preprocess=not single or values["cells.preprocess"] == "yes",
        normal=normal,
        reduction=reduction,
    )


def _genotype(values: Values, cell: str, nodes: int) -> Genotype:
    drawn = tuple(_edges(values, f"cells.{cell}.{node}", node + 2, cell == "reduction") for node in range(nodes))
    used = {edge.source for edges in drawn for edge in edges}
    concat = tuple(
        node + 2 for node in range(nodes) if node + 2 not in used or values[f"cells.{cell}.{node}.concat"] == "yes"
    )
    return Genotype(nodes=drawn, concat=concat)


def _edges(values: Values, name: str, state: int, reduction: bool) -> tuple[Edge, ...]:
    edges = tuple(
        Edge(op=_op(values, f"{name}.op.{edge}", source, reduction), source=source)
        for edge, source in enumerate(_sources(state)[str(values[f"{name}.sources"])])
    )
    if not is_redundant(edges):
        return edges
    return (edges[0].model_copy(update={"op": SUBSTITUTE}), *edges[1:])


def _op(values: Values, name: str, source: int, reduction: bool) -> CellOp:
    op = cast(CellOp, values[name])
    return "conv_1x1" if op == "skip" and reduction and source < 2 else op
