"""Pairs of nodes against the table of all distances, and traversals against a dense construction of the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.graph.batching import virtual_edges
from ghnq.graph.batching.batch import GraphBatch
from ghnq.graph.batching.virtual_edges import pairs_within
from ghnq.graph.ir import ArchGraph, Node
from tests.hypernet.graphs import random_graph


def chain(size: int, skips: tuple[tuple[int, int], ...] = ()) -> ArchGraph:
    """A path of sums with some edges that jump."""
    nodes = (Node("input", "input"), *(Node("sum", "sum") for _ in range(size - 1)))
    return ArchGraph(nodes, tuple(sorted({*((i, i + 1) for i in range(size - 1)), *skips})), (), (3, 8, 8), 10)


def as_table(graph: ArchGraph, max_distance: int) -> np.ndarray:
    table = np.zeros((len(graph), len(graph)), dtype=np.int64)
    found = pairs_within(graph, max_distance)
    np.add.at(table, (found.source, found.target), found.hops)  # a pair found twice would be counted twice
    return table


@pytest.mark.parametrize("small", [0, 10_000])
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.integers(3, 60), most=st.sampled_from([1, 2, 3, 7, 50]))
def test_pairs_are_those_of_the_table_of_distances(small: int, seed: int, size: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virtual_edges, "MAX_TABLE_NODES", small)
        for graph in (random_graph(seed, size=size), chain(size, ((0, size // 2), (size // 3, size - 1)))):
            table = graph.distances().astype(np.int64)
            np.testing.assert_array_equal(as_table(graph, most), np.where(table <= most, table, 0))


def test_a_long_chain_with_long_skips_is_exact() -> None:
    graph = chain(virtual_edges.MAX_TABLE_NODES + 200, ((0, 1100), (3, 600), (590, 1150)))
    table = graph.distances().astype(np.int64)
    np.testing.assert_array_equal(as_table(graph, 50), np.where(table <= 50, table, 0))


def test_pairs_of_a_chain_grow_with_its_length_and_not_with_its_square() -> None:
    for size in (2_000, 20_000):
        assert len(pairs_within(chain(size), 50).hops) == sum(min(v, 50) for v in range(size))


@settings(max_examples=25)
@given(seeds=st.lists(st.integers(0, 1000), min_size=1, max_size=4), most=st.sampled_from([1, 3, 50]))
def test_the_weights_of_levels_are_exactly_those_of_the_edges(seeds: list[int], most: int) -> None:
    graphs = [random_graph(seed, size=5 + seed % 40) for seed in seeds]
    batch = GraphBatch.from_graphs(graphs, max_distance=most)
    offsets = np.cumsum([0, *(len(g) for g in graphs)])
    total = int(offsets[-1])
    for backward, traversal in ((False, batch.forward), (True, batch.backward)):
        order, bounds = traversal.order.numpy(), traversal.bounds
        assert sorted(order.tolist()) == list(range(total))
        np.testing.assert_array_equal(traversal.rank.numpy()[order], np.arange(total))
        dense = np.zeros((total, total, 2))
        for level, weights in enumerate(traversal.weights):
            start, a, b = traversal.starts[level], bounds[level], bounds[level + 1]
            assert start <= a
            block = weights.numpy().reshape(b - a, a - start, 2)
            dense[np.ix_(order[a:b], order[start:a])] = block
            assert a == start or block[:, 0].any()  # no wider than the senders
        expected = np.zeros_like(dense)
        for graph, offset in zip(graphs, offsets, strict=False):
            hops = graph.distances().astype(float) if backward else graph.distances().T.astype(float)
            part = slice(offset, offset + len(graph))
            expected[part, part, 0] = hops == 1
            expected[part, part, 1] = np.divide(1, hops, out=np.zeros_like(hops), where=(hops > 0) & (hops <= most))
        np.testing.assert_allclose(dense, expected, rtol=1e-7, atol=0)


def test_a_batch_makes_nothing_that_is_not_asked_for() -> None:
    batch = GraphBatch.from_graphs([chain(50)])
    assert not {"node_pairs", "forward", "backward"} & vars(batch).keys()
    assert batch.forward is batch.forward
    assert "backward" not in vars(batch)
