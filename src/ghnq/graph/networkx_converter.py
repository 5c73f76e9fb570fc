"""Graphs to networkx, which the extra `graph` installs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghnq.graph.elements import GraphData
from ghnq.optional_imports import import_optional

if TYPE_CHECKING:
    from networkx import DiGraph


def to_networkx(graph: GraphData) -> DiGraph:
    """Returns a `networkx.DiGraph` with node attributes op, name, shape, output_shape and parameters (names).

    Raises:
        MissingExtraError: networkx is not installed.
    """
    owned: list[list[str]] = [[] for _ in graph.nodes]
    for parameter in graph.parameters:
        owned[parameter.node].append(parameter.name)
    result = import_optional("networkx").DiGraph(input_shape=graph.input_shape, num_outputs=graph.num_outputs)
    for i, node in enumerate(graph.nodes):
        result.add_node(
            i, op=node.op, name=node.name, shape=node.shape, output_shape=node.output_shape, parameters=tuple(owned[i])
        )
    result.add_edges_from(graph.edges)
    return result
