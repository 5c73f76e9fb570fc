"""The whole hypernetwork on random graphs: names, shapes, finiteness, gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.graph.batching.batch import GraphBatch
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.model import GHN
from tests.hypernet.graphs import random_graph


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    encoder=st.sampled_from(["gatedgnn", "graphormer", "mlp"]),
    depthwise=st.sampled_from(["own", "shared"]),
    decoder=st.sampled_from(["conv", "lowrank"]),
    kernel=st.sampled_from(["corner", "centre"]),
    classes=st.integers(2, 30),
)
def test_every_parameter_is_predicted_in_shape_and_finite(
    seed: int, encoder: str, depthwise: str, decoder: str, kernel: str, classes: int
) -> None:
    torch.manual_seed(seed)
    config = GHNConfig(
        num_classes=classes,
        hidden=8,
        max_shape=(24, 20, 5, 5),
        encoder=encoder,
        depthwise=depthwise,
        decoder=decoder,
        kernel=kernel,
        rank=4,
    )
    ghn = GHN(config)
    graph = random_graph(seed, classes=classes)
    predicted = ghn.predict(graph)
    assert {k: tuple(v.shape) for k, v in predicted.items()} == {p.name: p.shape for p in graph.parameters}
    assert all(bool(v.isfinite().all()) for v in predicted.values())


@pytest.mark.parametrize(
    ("encoder", "decoder"), [("gatedgnn", "conv"), ("graphormer", "conv"), ("mlp", "conv"), ("gatedgnn", "lowrank")]
)
def test_every_weight_of_the_hypernetwork_gets_a_gradient(encoder: str, decoder: str) -> None:
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden=8, max_shape=(24, 20, 5, 5), encoder=encoder, decoder=decoder))  # type: ignore[arg-type]
    graphs = [random_graph(seed, size=30) for seed in range(6)]
    loss = sum(t.square().mean() for network in ghn(GraphBatch.from_graphs(graphs)) for t in network.values())
    torch.as_tensor(loss).backward()
    without = [n for n, p in ghn.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_the_graph_matters_to_the_graph_network_and_not_to_the_baseline() -> None:
    torch.manual_seed(0)
    graph = random_graph(3, size=14)
    from dataclasses import replace

    last = len(graph.nodes) - 2
    other = replace(graph, edges=tuple(sorted({*graph.edges, (0, last)})))
    assert other != graph
    for encoder, same in (("gatedgnn", False), ("graphormer", False), ("mlp", True)):
        ghn = GHN(GHNConfig(hidden=8, encoder=encoder))  # type: ignore[arg-type]
        a, b = ghn.predict(graph), ghn.predict(other)
        assert all(torch.equal(a[k], b[k]) for k in a) == same


def test_with_identity_only_kernels_differ_and_by_the_identity() -> None:
    graph = random_graph(3, size=20)
    networks = []
    for identity in (False, True):
        torch.manual_seed(0)
        ghn = GHN(GHNConfig(hidden=8, max_shape=(24, 20, 5, 5), identity=identity))
        with torch.no_grad():
            networks.append(ghn.predict(graph))
    kernels = 0
    for parameter in graph.parameters:
        difference = networks[1][parameter.name] - networks[0][parameter.name]
        if parameter.role != "weight":
            assert not difference.any()
            continue
        kernels += 1
        o, i, height, width = parameter.shape
        expected = torch.zeros(parameter.shape)
        if graph.nodes[parameter.node].op == "sep_conv":
            expected[:, 0, height // 2, width // 2] = 1
        else:
            for channel in range(min(o, i)):
                expected[channel, channel, height // 2, width // 2] = 1
        torch.testing.assert_close(difference, expected, rtol=0, atol=1e-6)
    assert kernels > 3
