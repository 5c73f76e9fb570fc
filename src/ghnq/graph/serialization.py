"""Graphs to JSON and back."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from ghnq.errors import GraphError
from ghnq.graph.elements import GraphData, Node, Parameter
from ghnq.graph.invariants import validate

FORMAT = "ghnq.graph"
VERSION = 1

Graph = TypeVar("Graph", bound=GraphData)


def to_json(graph: GraphData) -> str:
    """Returns one line of JSON with `format`, `version` and the fields of the graph."""
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


def from_json(cls: type[Graph], text: str) -> Graph:
    """Reads the graph that `to_json` wrote, and validates it.

    Args:
        cls: The class of the graph to make.

    Raises:
        GraphError: The text is not JSON, not a graph, of another version, or not a valid architecture.
    """
    document = _parse(text)
    try:
        graph = cls(
            nodes=tuple(_node(row) for row in document["nodes"]),
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
    validate(graph)
    return graph


def _parse(text: str) -> dict[str, Any]:
    """Returns the JSON document, which must have the right format and version."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise GraphError(f"not a graph: the text is not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise GraphError(f'not a graph: the JSON document lacks "format": "{FORMAT}"')
    if document.get("version") != VERSION:
        raise GraphError(f"the graph has format version {document.get('version')!r}; this release reads {VERSION}")
    return document


def _node(row: dict[str, Any]) -> Node:
    return Node(
        op=str(row["op"]),
        name=str(row["name"]),
        shape=None if row["shape"] is None else tuple(row["shape"]),
        output_shape=tuple(row["output_shape"]),
    )
