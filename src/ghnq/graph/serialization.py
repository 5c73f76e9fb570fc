"""Graphs to JSON and back, and to networkx."""

from __future__ import annotations

import json
from typing import Any

from ghnq.errors import GraphError
from ghnq.graph.ir import ArchGraph, Node, Parameter

FORMAT = "ghnq.graph"
VERSION = 1


def to_json(graph: ArchGraph) -> str:
    """One line of JSON: `format`, `version`, `input_shape`, rows of nodes, edges and parameters, ...."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "input_shape": graph.input_shape,
        "num_outputs": graph.num_outputs,
        "nodes": [
            {"op": n.op, "name": n.name, "shape": n.shape, "output_shape": n.output_shape} for n in graph.nodes
        ],
        "edges": graph.edges,
        "parameters": [
            {"name": p.name, "shape": p.shape, "node": p.node, "role": p.role} for p in graph.parameters
        ],
        "further_outputs": graph.further_outputs,
        "unused": graph.unused,
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":"))


def from_json(text: str) -> ArchGraph:
    """The validated graph of a document written by `to_json`; raises `GraphError` saying what does not fit."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise GraphError(f"not a graph: the text is not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise GraphError(f'not a graph: the JSON document lacks "format": "{FORMAT}"')
    if document.get("version") != VERSION:
        raise GraphError(f"the graph has format version {document.get('version')!r}; this release reads {VERSION}")
    try:
        graph = ArchGraph(
            nodes=tuple(
                Node(
                    op=str(row["op"]),
                    name=str(row["name"]),
                    shape=None if row["shape"] is None else tuple(row["shape"]),
                    output_shape=tuple(row["output_shape"]),
                )
                for row in document["nodes"]
            ),
            edges=tuple(tuple(edge) for edge in document["edges"]),
            parameters=tuple(
                Parameter(name=str(row["name"]), shape=tuple(row["shape"]), node=row["node"], role=row["role"])
                for row in document["parameters"]
            ),
            input_shape=tuple(document["input_shape"]),
            num_outputs=document["num_outputs"],
            further_outputs=tuple(document.get("further_outputs", ())),
            unused=tuple(str(name) for name in document.get("unused", ())),
        )
    except KeyError as error:
        raise GraphError(f"not a graph: the JSON document lacks {error}") from None
    except TypeError as error:
        raise GraphError(f"not a graph: a value of the JSON document has the wrong type ({error})") from None
    return graph.validate()


def to_networkx(graph: ArchGraph) -> Any:
    """A `networkx.DiGraph`; parameter names are listed at the node that owns them."""
    import networkx as nx

    owned: list[list[str]] = [[] for _ in graph.nodes]
    for parameter in graph.parameters:
        owned[parameter.node].append(parameter.name)
    result = nx.DiGraph(input_shape=graph.input_shape, num_outputs=graph.num_outputs)
    for i, node in enumerate(graph.nodes):
        result.add_node(
            i, op=node.op, name=node.name, shape=node.shape, output_shape=node.output_shape, parameters=tuple(owned[i])
        )
    result.add_edges_from(graph.edges)
    return result
