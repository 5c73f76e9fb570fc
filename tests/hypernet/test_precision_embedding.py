"""The precision embedding: node by node, without effect at first, and in the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ghnq.errors import SchemeError
from ghnq.graph import trace
from ghnq.graph.batching.batch import GraphBatch
from ghnq.hypernet import GHN, GHNConfig, initialize
from ghnq.hypernet.precision_embedding import layer_of, precision_features
from ghnq.quant import QuantScheme

CONFIG = GHNConfig(hidden=8, max_shape=(6, 6, 3, 3), condition=True)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5),
        nn.Flatten(), nn.Linear(180, 10),
    )  # fmt: skip


def trained() -> GHN:
    """One whose condition has an effect."""
    torch.manual_seed(0)
    ghn = GHN(CONFIG)
    assert ghn.precision is not None
    nn.init.normal_(ghn.precision.inner.weight)
    nn.init.normal_(ghn.precision.outer.weight)
    return ghn.eval()


def test_at_first_the_condition_has_no_effect_and_all_of_it_learns() -> None:
    torch.manual_seed(0)
    ghn, graph = GHN(CONFIG), trace(network(), (3, 8, 8))
    plain, conditioned = ghn.predict(graph), ghn.predict(graph, "w4a8")
    assert all(torch.equal(plain[name], conditioned[name]) for name in plain)
    sum(t.square().sum() for t in conditioned.values()).backward()  # type: ignore[union-attr]
    assert ghn.precision is not None
    assert ghn.precision.outer.weight.grad is not None
    assert bool(ghn.precision.outer.weight.grad.any())


def test_a_granularity_never_shown_in_training_changes_nothing() -> None:
    torch.manual_seed(0)
    ghn, graph = GHN(CONFIG), trace(network(), (3, 8, 8))
    shown, hidden = QuantScheme.parse("w4a8"), QuantScheme.parse("w4a8", protocol="paper")
    optimizer = torch.optim.AdamW(ghn.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        sum(t.square().sum() for t in ghn.predict(graph, shown).values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    with torch.no_grad():
        conditioned, other, plain = (ghn.predict(graph, scheme)["0.weight"] for scheme in (shown, hidden, "float32"))
    assert torch.equal(conditioned, other)
    assert not torch.equal(conditioned, plain)


def test_each_scheme_gets_weights_of_its_own() -> None:
    ghn, graph = trained(), trace(network(), (3, 8, 8))
    with torch.no_grad():
        weights = [ghn.predict(graph, s)["0.weight"] for s in ("float32", "w8a8", "w8", "w4a8", "w4a4", "w2a2")]
        paper = ghn.predict(graph, QuantScheme.parse("w4a8", protocol="paper"))["0.weight"]
    for i, a in enumerate([*weights, paper]):
        assert all(not torch.equal(a, b) for b in [*weights, paper][:i])


def test_features_are_those_of_the_scheme_node_by_node() -> None:
    graph = trace(network(), (3, 8, 8))
    scheme = QuantScheme.parse("w4a8+3=w2")
    rows = precision_features([graph, graph], [scheme, QuantScheme.parse("float32")])
    n = len(graph)
    of = {node.name + node.op: rows[i].tolist() for i, node in enumerate(graph.nodes)}
    four_eight = [1, 1, 4 / 8, 2**-2, 1, 1, 2**-6, 0]
    two = [1, 1, 2 / 8, 1, 0, 0, 0, 0]
    assert of["inputinput"] == [0] * 8
    assert of["0conv"] == of["0bias"] == of["1bn"] == of["6conv"] == of["6bias"] == four_eight
    assert of["3conv"] == of["4bn"] == two  # the norm is folded into the convolution before it
    assert rows[n + 1].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert [layer_of(graph, i) for i in range(1, n)] == ["0", "0", "0", "3", "3", "6", "6"]


def test_a_batch_under_several_schemes_is_each_alone() -> None:
    ghn = trained()
    graphs = [trace(network(), (3, 8, 8))] * 3
    schemes = [QuantScheme.parse(s) for s in ("float32", "w4a8", "w4a4+0=w8a8")]
    with torch.no_grad():
        together = ghn(GraphBatch.from_graphs(graphs), schemes)
        for graph, scheme, parameters in zip(graphs, schemes, together, strict=True):
            alone = ghn.predict(graph, scheme)
            for name, tensor in parameters.items():
                torch.testing.assert_close(tensor, alone[name], rtol=1e-5, atol=1e-6)


def test_checkpoints_keep_the_condition(tmp_path: Path) -> None:
    ghn, graph = trained(), trace(network(), (3, 8, 8))
    ghn.save_pretrained(tmp_path)
    again = GHN.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again.predict(graph, "w4a4")["0.weight"], ghn.predict(graph, "w4a4")["0.weight"])
    module = initialize(network(), again, (3, 8, 8), scheme="w4a4")
    with torch.no_grad():
        assert torch.equal(module[0].weight, ghn.predict(graph, "w4a4")["0.weight"])


def test_an_unconditioned_hypernetwork_predicts_the_same_for_all() -> None:
    torch.manual_seed(0)
    ghn, graph = GHN(CONFIG.model_copy(update={"condition": False})), trace(network(), (3, 8, 8))
    assert torch.equal(ghn.predict(graph)["0.weight"], ghn.predict(graph, "w4a4")["0.weight"])
    with pytest.raises(SchemeError, match="w4x"):
        ghn.predict(graph, "w4x")
