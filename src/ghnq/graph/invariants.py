"""Checks that a graph is a valid architecture; each error names the node, edge or parameter that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ghnq.errors import GraphError, nearest
from ghnq.graph.elements import GraphData
from ghnq.graph.ops import OPS


def validate(graph: GraphData) -> None:
    """Checks nodes, edges and parameters.

    Every edge goes forward. Therefore, if every node but the first has a predecessor, the input reaches all nodes; and
    if every node but the outputs has a successor, all nodes reach an output.

    Raises:
        GraphError: For the first violation found.
    """
    _check_nodes(graph)
    _check_edges(graph)
    _check_parameters(graph)
    if not graph.input_shape or not _positive(graph.input_shape):
        raise GraphError(f"input shape {graph.input_shape} must be positive integers, for instance (3, 32, 32)")
    if not _is_size(graph.num_outputs):
        raise GraphError(f"num_outputs is {graph.num_outputs!r}; it must be a positive integer")


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _positive(shape: Sequence[int]) -> bool:
    return all(type(size) is int and size > 0 for size in shape)


def _check_nodes(graph: GraphData) -> None:
    if len(graph.nodes) < 2:
        raise GraphError(f"a graph needs the input and at least one operation; this one has {len(graph.nodes)} node(s)")
    for i, node in enumerate(graph.nodes):
        if node.op not in OPS:
            raise GraphError(
                f"node {i} ({node.name!r}) has the unknown op {node.op!r}{nearest(node.op, OPS)}; "
                f"known ops: {', '.join(OPS)}"
            )
        if (node.op == "input") != (i == 0):
            problem = "is an input, but only node 0 may be" if i else f"must be the input, but is {node.op!r}"
            raise GraphError(f"node {i} ({node.name!r}) {problem}")
        if node.shape is not None and (len(node.shape) != 4 or not _positive(node.shape)):
            raise GraphError(f"node {i} ({node.name!r}) has shape {node.shape}; it must be None or 4 positive integers")
        if not _positive(node.output_shape):
            raise GraphError(f"node {i} ({node.name!r}) has output shape {node.output_shape} with a size below 1")


def _check_edges(graph: GraphData) -> None:
    n = len(graph.nodes)
    has_predecessor, has_successor = [False] * n, [False] * n
    for edge in graph.edges:
        if len(edge) != 2 or not all(type(end) is int for end in edge):
            raise GraphError(f"edge {edge} is not a pair of node numbers")
        u, v = edge
        if not (0 <= u < n and 0 <= v < n):
            raise GraphError(f"edge {edge} leaves the range of the nodes, 0 to {n - 1}")
        if u >= v:
            raise GraphError(f"edge {edge} does not go forward; nodes must be in topological order")
        has_successor[u] = has_predecessor[v] = True
    for before, after in pairwise(graph.edges):
        if before >= after:
            fault = "occurs twice" if before == after else f"comes after {before}; edges must be sorted"
            raise GraphError(f"edge {after} {fault}")
    for i, reached in enumerate(has_predecessor):
        if i > 0 and not reached:
            raise GraphError(f"node {i} ({graph.nodes[i].op} {graph.nodes[i].name!r}) is not reachable from the input")
    for i, reaches in enumerate(has_successor[:-1]):
        name = f"node {i} ({graph.nodes[i].op} {graph.nodes[i].name!r})"
        if not reaches and i not in graph.further_outputs:
            raise GraphError(f"{name} does not reach the last node")
        if reaches and i in graph.further_outputs:
            raise GraphError(f"{name} is listed as a further output, but an edge leads on from it")
    if len(set(graph.further_outputs) & set(range(n - 1))) < len(graph.further_outputs):
        raise GraphError(f"further outputs {graph.further_outputs} must be different nodes before the last, {n - 1}")


def _check_parameters(graph: GraphData) -> None:
    names: set[str] = set()
    owned: set[tuple[int, str]] = set()
    for parameter in graph.parameters:
        name, i, role = parameter.name, parameter.node, parameter.role
        if name in names:
            raise GraphError(f"parameter {name!r} occurs twice; every parameter is owned by exactly one node")
        names.add(name)
        if type(i) is not int or not 0 <= i < len(graph.nodes):
            raise GraphError(f"parameter {name!r} belongs to node {i}, outside the nodes 0 to {len(graph.nodes) - 1}")
        node = graph.nodes[i]
        allowed = OPS[node.op].roles
        if role not in allowed:
            raise GraphError(
                f"parameter {name!r} has the role {role!r}, which node {i} ({node.op} {node.name!r}) may not own; "
                f"allowed there: {', '.join(allowed) or 'none'}"
            )
        if (i, role) in owned:
            raise GraphError(f"parameter {name!r} is the second {role!r} of node {i} ({node.op} {node.name!r})")
        owned.add((i, role))
        if not _positive(parameter.shape):
            raise GraphError(f"parameter {name!r} has shape {parameter.shape}; it must be positive integers")
        if node.shape is None:
            raise GraphError(f"node {i} ({node.op} {node.name!r}) owns parameter {name!r} but has no shape")
    for name in graph.unused:
        if name in names:
            raise GraphError(f"parameter {name!r} is both owned by a node and listed as unused")
    order = [parameter.node for parameter in graph.parameters]
    for previous, parameter in zip(order, graph.parameters[1:], strict=False):
        if previous > parameter.node:
            raise GraphError(f"parameter {parameter.name!r} is out of order; parameters are sorted by node")
