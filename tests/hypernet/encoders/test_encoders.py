"""Batched encoders against the node-by-node ones, values and gradients."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from ghnq.graph.batching.batch import GraphBatch
from ghnq.hypernet.encoders import levels_numpy, traverse
from ghnq.hypernet.encoders.gatedgnn import GatedGNN
from ghnq.hypernet.encoders.graphormer import Graphormer
from tests.hypernet.encoders import levels_torch
from tests.hypernet.encoders.slow_encoders import gated_gnn, graphormer
from tests.hypernet.graphs import random_graph


def assert_same_gradients(
    actual: torch.Tensor, expected: torch.Tensor, inputs: list[torch.Tensor], **tolerance: float
) -> None:
    """Of both, along one random direction, with respect to every input."""
    direction = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * direction).sum(), inputs)
    got = torch.autograd.grad((actual * direction).sum(), inputs)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("virtual_edges", [True, False])
@pytest.mark.parametrize("max_distance", [50, 2])
@pytest.mark.parametrize("levels", [levels_numpy, levels_torch])
def test_level_batched_traversal_equals_the_papers_loop(
    levels: ModuleType, virtual_edges: bool, max_distance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traverse, "levels_numpy", levels)
    torch.manual_seed(0)
    gnn = GatedGNN(hidden=8, virtual_edges=virtual_edges).double()
    graphs = [random_graph(seed, size=6 + 3 * seed) for seed in range(4)]
    h = torch.randn(sum(len(g.nodes) for g in graphs), 8, dtype=torch.double, requires_grad=True)
    batch = GraphBatch.from_graphs(graphs, max_distance=max_distance)
    batch = _double(batch)
    parts = h.split([len(g.nodes) for g in graphs])
    expected = torch.cat(
        [gated_gnn(gnn, part, g, max_distance=max_distance) for part, g in zip(parts, graphs, strict=True)]
    )
    actual = gnn(h, batch)
    # The batch holds 1 / distance in float32: that, not the order of the arithmetic, is the tolerance.
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)

    assert_same_gradients(actual, expected, [h, *gnn.parameters()], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("virtual_edges", [True, False])
@pytest.mark.parametrize("max_distance", [50, 2])
def test_transformer_over_nodes_equals_a_loop_over_pairs(virtual_edges: bool, max_distance: int) -> None:
    torch.manual_seed(0)
    encoder = Graphormer(hidden=16, layers=2, heads=4, virtual_edges=virtual_edges).double()
    graphs = [random_graph(seed, size=6 + 3 * seed) for seed in range(4)]
    h = torch.randn(sum(len(g.nodes) for g in graphs), 16, dtype=torch.double, requires_grad=True)
    parts = h.split([len(g.nodes) for g in graphs])
    expected = torch.cat(
        [graphormer(encoder, part, g, max_distance=max_distance) for part, g in zip(parts, graphs, strict=True)]
    )
    actual = encoder(h, GraphBatch.from_graphs(graphs, max_distance=max_distance))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    assert_same_gradients(actual, expected, [h, *encoder.parameters()], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("encoder", ["gatedgnn", "graphormer"])
def test_a_graph_is_encoded_the_same_alone_and_in_a_batch(encoder: str) -> None:
    torch.manual_seed(1)
    network = GatedGNN(hidden=16) if encoder == "gatedgnn" else Graphormer(hidden=16, layers=2, heads=8)
    graphs = [random_graph(seed, size=20) for seed in range(5)]
    h = [torch.randn(len(g.nodes), 16) for g in graphs]
    together = network(torch.cat(h), GraphBatch.from_graphs(graphs)).split([len(x) for x in h])
    for graph, x, expected in zip(graphs, h, together, strict=True):
        torch.testing.assert_close(network(x, GraphBatch.from_graphs([graph])), expected, rtol=1e-5, atol=1e-6)


def _double(batch: GraphBatch) -> GraphBatch:
    """The batch with its cached traversals in float64."""
    for name in ("forward", "backward"):
        t = getattr(batch, name)
        vars(batch)[name] = replace(t, weights=tuple(w.double() for w in t.weights))
    return batch
