"""The graph as a value: validation, distances, properties, JSON, networkx."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.errors import GraphError
from ghnq.graph import OPS, ArchGraph, Node, Parameter
from ghnq.graph.ops import GHN2_OPS

GRAPH = ArchGraph(
    nodes=(
        Node("input", "input", None, (3, 8, 8)),
        Node("conv", "stem", (4, 3, 3, 3), (4, 8, 8)),
        Node("bn", "norm", (4, 1, 1, 1), (4, 8, 8)),
        Node("sum", "add", None, (4, 8, 8)),
        Node("conv", "fc", (10, 4, 1, 1), (10,)),
        Node("bias", "fc", (10, 1, 1, 1), (10,)),
    ),
    edges=((0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5)),
    parameters=(
        Parameter("stem.weight", (4, 3, 3, 3), 1, "weight"),
        Parameter("norm.weight", (4,), 2, "norm_weight"),
        Parameter("norm.bias", (4,), 2, "norm_bias"),
        Parameter("fc.weight", (10, 4), 4, "class_weight"),
        Parameter("fc.bias", (10,), 5, "class_bias"),
    ),
    input_shape=(3, 8, 8),
    num_outputs=10,
)


def test_the_vocabulary_starts_in_the_order_of_ghn2() -> None:
    assert tuple(OPS)[:15] == GHN2_OPS
    assert [op.index for op in OPS.values()] == list(range(len(OPS)))
    assert all(name == op.name for name, op in OPS.items())
    assert len({op.colour for op in OPS.values()}) == len(OPS)


def test_a_graph_is_a_value() -> None:
    twin = ArchGraph(**{name: getattr(GRAPH, name) for name in GRAPH.__dataclass_fields__})
    assert twin == GRAPH
    assert hash(twin) == hash(GRAPH)
    assert replace(GRAPH, num_outputs=9) != GRAPH
    with pytest.raises(FrozenInstanceError):
        GRAPH.num_outputs = 9  # type: ignore[misc]


def test_properties() -> None:
    assert GRAPH.validate() is GRAPH
    assert len(GRAPH) == 6
    assert GRAPH.num_parameters == 108 + 4 + 4 + 40 + 10
    assert GRAPH.multiply_adds == 4 * 64 * 27 + 40
    assert GRAPH.depth == 5
    assert GRAPH.levels == (0, 1, 2, 3, 4, 5)
    assert GRAPH.predecessors == ((), (0,), (1,), (1, 2), (3,), (4,))
    assert GRAPH.successors == ((1,), (2, 3), (3,), (4,), (5,), ())


def change(what: str, index: int, **values: Any) -> ArchGraph:
    items = list(getattr(GRAPH, what))
    items[index] = replace(items[index], **values)
    return replace(GRAPH, **{what: tuple(items)})


BROKEN = {
    r"at least one operation; this one has 1": replace(GRAPH, nodes=GRAPH.nodes[:1], edges=(), parameters=()),
    r"node 1 \('stem'\) has the unknown op 'cnv' \(did you mean 'conv'\?\)": change("nodes", 1, op="cnv"),
    r"node 3 \('add'\) is an input, but only node 0": change("nodes", 3, op="input"),
    r"node 0 \('input'\) must be the input, but is 'sum'": change("nodes", 0, op="sum"),
    r"node 1 \('stem'\) has shape \(4, 3, 3\)": change("nodes", 1, shape=(4, 3, 3)),
    r"node 1 \('stem'\) has shape \(4, 3, 0, 3\)": change("nodes", 1, shape=(4, 3, 0, 3)),
    r"node 3 \('add'\) has output shape \(4, -1\)": change("nodes", 3, output_shape=(4, -1)),
    r"edge \(4, 6\) leaves the range of the nodes, 0 to 5": replace(GRAPH, edges=(*GRAPH.edges, (4, 6))),
    r"edge \(-1, 2\) leaves": replace(GRAPH, edges=((-1, 2), *GRAPH.edges)),
    r"edge \(3, 2\) does not go forward": replace(GRAPH, edges=(*GRAPH.edges[:3], (3, 2), *GRAPH.edges[3:])),
    r"edge \(2, 2\) does not go forward": replace(GRAPH, edges=(*GRAPH.edges[:3], (2, 2), *GRAPH.edges[3:])),
    r"edge \(4, 5\) occurs twice": replace(GRAPH, edges=(*GRAPH.edges, (4, 5))),
    r"edge \(0, 2\) comes after \(4, 5\); edges must be sorted": replace(GRAPH, edges=(*GRAPH.edges, (0, 2))),
    r"edge \(0, 1, 2\) is not a pair": replace(GRAPH, edges=((0, 1, 2),)),  # type: ignore[arg-type]
    r"node 4 \(conv 'fc'\) is not reachable from the input": replace(
        GRAPH, edges=tuple(edge for edge in GRAPH.edges if edge[1] != 4)
    ),
    r"node 2 \(bn 'norm'\) does not reach the last node": replace(
        GRAPH, edges=tuple(edge for edge in GRAPH.edges if edge[0] != 2)
    ),
    r"parameter 'stem.weight' occurs twice": change("parameters", 1, name="stem.weight"),
    r"parameter 'fc.bias' belongs to node 6, outside the nodes 0 to 5": change("parameters", 4, node=6),
    r"'fc.bias' has the role 'weight', which node 5 \(bias 'fc'\) may not own; .*: bias, class_bias": change(
        "parameters", 4, role="weight"
    ),
    r"'stem.weight' has the role 'weight', which node 3 \(sum 'add'\) may not own; allowed there: none": change(
        "parameters", 0, node=3
    ),
    r"'norm.bias' is the second 'norm_weight' of node 2": change("parameters", 2, role="norm_weight"),
    r"parameter 'fc.weight' has shape \(10, 0\)": change("parameters", 3, shape=(10, 0)),
    r"node 1 \(conv 'stem'\) owns parameter 'stem.weight' but has no shape": change("nodes", 1, shape=None),
    r"parameter 'fc.weight' is out of order": replace(
        GRAPH, parameters=(*GRAPH.parameters[:3], GRAPH.parameters[4], GRAPH.parameters[3])
    ),
    r"input shape \(3, 0\) must be positive": replace(GRAPH, input_shape=(3, 0)),
    r"input shape \(\) must be positive": replace(GRAPH, input_shape=()),
    r"num_outputs is 0": replace(GRAPH, num_outputs=0),
}


@pytest.mark.parametrize("message", BROKEN)
def test_validation_names_what_is_wrong(message: str) -> None:
    with pytest.raises(GraphError, match=message):
        BROKEN[message].validate()


def random_graph(n: int, extra: list[tuple[int, int]]) -> ArchGraph:
    """Every node has an earlier predecessor; the last node follows all those without another successor."""
    edges = {(min(u % v, v - 1), v) for v, (u, _) in zip(range(1, n), extra, strict=False)}
    edges |= {(u % v, v) for u, v in ((u, 1 + v % (n - 1)) for u, v in extra)}
    edges |= {(0, v) for v in range(1, n) if not any(b == v for _, b in edges)}
    edges |= {(u, n - 1) for u in range(n - 1) if not any(a == u for a, _ in edges)}
    nodes = (Node("input", "input"), *(Node("sum", "add") for _ in range(n - 1)))
    return ArchGraph(nodes, tuple(sorted(edges)), (), (3, 8, 8), 10)


pairs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=0, max_size=60)


@settings(max_examples=60)
@given(st.integers(2, 40), pairs)
def test_distances_equal_breadth_first_search(n: int, extra: list[tuple[int, int]]) -> None:
    graph = random_graph(n, extra).validate()
    distances = graph.distances()
    assert distances.dtype == np.int16
    expected = np.zeros((n, n), dtype=np.int16)
    for u, row in nx.all_pairs_shortest_path_length(graph.to_networkx()):
        for v, length in row.items():
            expected[u, v] = length
    np.testing.assert_array_equal(distances, expected)


def test_distances_are_cached_and_read_only() -> None:
    graph = replace(GRAPH)
    assert graph.distances() is graph.distances()
    with pytest.raises(ValueError, match="read-only"):
        graph.distances()[0, 0] = 1


def test_distances_of_a_long_chain() -> None:
    n = 3000
    nodes = (Node("input", "input"), *(Node("bn", "n", (1, 1, 1, 1)) for _ in range(n - 1)))
    graph = ArchGraph(nodes, tuple((i, i + 1) for i in range(n - 1)), (), (1,), 1)
    steps = np.arange(n)
    np.testing.assert_array_equal(graph.distances(), np.maximum(steps[None] - steps[:, None], 0))


def test_distances_refuse_what_does_not_fit_their_type() -> None:
    graph = replace(GRAPH, nodes=GRAPH.nodes * 3000)
    with pytest.raises(GraphError, match="at most 16383 nodes; this one has 18000"):
        graph.distances()


def test_json_round_trip_is_exact() -> None:
    text = GRAPH.to_json()
    assert "\n" not in text
    again = ArchGraph.from_json(text)
    assert again == GRAPH
    assert again.to_json() == text


def without(key: str) -> str:
    document = json.loads(GRAPH.to_json())
    del document[key]
    return json.dumps(document)


def with_value(key: str, value: Any) -> str:
    return json.dumps({**json.loads(GRAPH.to_json()), key: value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", 'lacks "format"'),
        (without("format"), 'lacks "format"'),
        (with_value("version", 99), "format version 99; this release reads 1"),
        (without("edges"), "lacks 'edges'"),
        (with_value("nodes", [{"op": "input"}]), "lacks 'name'"),
        (with_value("edges", [1]), "wrong type"),
        (with_value("edges", [["a", "b"]]), "not a pair of node numbers"),
        (with_value("edges", [[0, 1.5]]), "not a pair of node numbers"),
        (with_value("num_outputs", "ten"), "num_outputs is 'ten'"),
        (with_value("edges", [[0, 1]]), "not reachable"),
    ],
)
def test_json_that_is_no_graph_is_refused(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        ArchGraph.from_json(text)


def test_networkx_carries_everything() -> None:
    result = GRAPH.to_networkx()
    assert result.graph == {"input_shape": (3, 8, 8), "num_outputs": 10}
    assert sorted(result.edges) == list(GRAPH.edges)
    assert result.nodes[2] == {
        "op": "bn",
        "name": "norm",
        "shape": (4, 1, 1, 1),
        "output_shape": (4, 8, 8),
        "parameters": ("norm.weight", "norm.bias"),
    }
