"""The structural encoding: features counted by hand, by another way of finding the longest paths, and their effect."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ghnq.graph import trace
from ghnq.graph.batching.batch import GraphBatch
from ghnq.graph.ir import ArchGraph
from ghnq.hypernet import GHN, GHNConfig
from ghnq.hypernet.structural_encoding import FEATURES, structural_features
from tests.hypernet.graphs import random_graph

CONFIG = GHNConfig(hidden=8, max_shape=(6, 6, 3, 3), place=True)


class Residual(nn.Module):
    """conv - (conv + itself) - pool over everything - linear, the first convolution of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.classifier = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        logits: Tensor = self.classifier((x + self.second(x)).mean((2, 3)))
        return logits


def test_features_by_hand() -> None:
    graph = trace(Residual(), (3, 16, 16))
    assert [node.op for node in graph.nodes] == ["input", "conv", "conv", "sum", "glob_avg", "conv", "bias"]
    features = structural_features([graph])
    assert features.shape == (7, FEATURES)
    for node, below, halvings, into, out in [(0, 0, 0, 0, 1), (1, 1, 1, 1, 2), (3, 3, 1, 2, 1)]:
        waves = [math.cos(math.pi * k * below / 6) for k in (1, 2, 3, 4)]
        lengths = [math.log(1 + below) / 2 - 1, math.log(7 - below) / 2 - 1]
        edges = [math.log2(max(1, into)), math.log2(max(1, out))]
        expected = [*waves, *lengths, halvings / 2 - 1, 1.0, *edges]
        torch.testing.assert_close(features[node], torch.tensor(expected))
    assert features[5:, 7].tolist() == [0, 0]  # behind the pool there is no image


@pytest.mark.parametrize("seed", range(8))
def test_heights_are_the_longest_paths_on(seed: int) -> None:
    graph = random_graph(seed, size=20)

    def longest(node: int) -> int:
        return max((1 + longest(after) for before, after in graph.edges if before == node), default=0)

    assert graph.heights == tuple(longest(node) for node in range(len(graph)))


def test_graphs_of_a_batch_are_independent() -> None:
    graphs = [random_graph(seed, size=9 + seed) for seed in range(4)]
    assert torch.equal(structural_features(graphs), torch.cat([structural_features([g]) for g in graphs]))


def test_equal_layers_at_different_depths_get_weights_of_their_own() -> None:
    """Without message passing only the structural encoding distinguishes them."""
    layers = [nn.Conv2d(3, 4, 3, bias=False), *(nn.Conv2d(4, 4, 3, bias=False) for _ in range(3))]
    graph = trace(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4, 10)), (3, 16, 16))
    torch.manual_seed(0)
    for place in (False, True):
        config = CONFIG.model_copy(update={"encoder": "mlp", "place": place})
        second, third = _weights(GHN(config), graph)
        assert torch.equal(second, third) is not place


def test_the_structural_encoding_learns_and_is_in_the_checkpoint(tmp_path: object) -> None:
    ghn = GHN(CONFIG)
    batch = GraphBatch.from_graphs([random_graph(0)])
    sum(t.square().sum() for t in ghn(batch)[0].values()).backward()
    assert ghn.place is not None
    assert all(bool(p.grad.any()) for p in ghn.place.parameters() if p.grad is not None)
    ghn.save_pretrained(str(tmp_path))
    again = GHN.from_pretrained(str(tmp_path))
    assert again.config == CONFIG
    assert all(torch.equal(a, b) for a, b in zip(ghn.parameters(), again.parameters(), strict=True))


def _weights(ghn: GHN, graph: ArchGraph) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        predicted = ghn.predict(graph)
    return predicted["1.weight"], predicted["2.weight"]
