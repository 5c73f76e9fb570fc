"""Comparing graphs up to renumbering."""

from __future__ import annotations

import networkx as nx

from ghnq.graph import ArchGraph


def labelled(graph: ArchGraph) -> nx.DiGraph:
    """The graph with every node labelled (op, name of its first parameter), as `autograd_oracle` labels it."""
    first: dict[int, str] = {}
    for parameter in graph.parameters:
        first.setdefault(parameter.node, parameter.name)
    result = nx.DiGraph()
    for i, node in enumerate(graph.nodes):
        result.add_node(i, label=(node.op, first.get(i, "")))
    result.add_edges_from(graph.edges)
    return result


def same_up_to_numbers(left: nx.DiGraph, right: nx.DiGraph) -> bool:
    """Whether a renumbering makes the graphs equal, labels included."""
    return nx.is_isomorphic(left, right, node_match=lambda a, b: a["label"] == b["label"])
