"""Given the references' weights, embeddings and parameters equal theirs: GHN-2 (`../shared/peers/ghn2`) and GHN-3."""

from pathlib import Path

import pytest
import torch

from ghnq.errors import CheckpointError
from ghnq.graph.batching.batch import GraphBatch
from ghnq.hypernet.model import GHN
from ghnq.hypernet.published_weights import from_published
from tests.hypernet.peers import read_ghn3, read_peer

RELATIVE = 1e-5


@pytest.fixture
def peers(shared_dir: Path) -> Path:
    return shared_dir / "peers" / "ghn2"


@pytest.fixture
def published(peers: Path) -> GHN:
    raw = torch.load(peers / "ghn2_random.pt", weights_only=True)
    return from_published(raw["config"], raw["state_dict"])


@pytest.mark.parametrize("name", ["plainnet", "resnet"])
def test_embeddings_and_parameters_equal_the_reference(peers: Path, published: GHN, name: str) -> None:
    graph, arrays = read_peer(peers, name)
    graph.validate()
    expected = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    batch = GraphBatch.from_graphs([graph])
    with torch.no_grad():
        embedding = published.encode(batch)
        predicted = published.predict(graph)
    wanted = arrays["graph/embedding"]
    assert (embedding - wanted).abs().max() <= RELATIVE * wanted.abs().max()
    assert predicted.keys() == expected.keys()
    for key, tensor in expected.items():
        assert predicted[key].shape == tensor.shape
        assert (predicted[key] - tensor).abs().max() <= RELATIVE * tensor.abs().max(), key


def test_two_graphs_in_one_batch_are_predicted_as_alone(peers: Path, published: GHN) -> None:
    graphs = [read_peer(peers, name)[0] for name in ("plainnet", "resnet")]
    with torch.no_grad():
        for graph, together in zip(graphs, published(GraphBatch.from_graphs(graphs)), strict=True):
            for key, tensor in published.predict(graph).items():
                torch.testing.assert_close(together[key], tensor, rtol=1e-5, atol=1e-6)


def test_an_unknown_layout_names_what_was_expected(peers: Path) -> None:
    raw = torch.load(peers / "ghn2_random.pt", weights_only=True)
    with pytest.raises(CheckpointError, match="hypernet"):
        from_published({**raw["config"], "surprise": 1}, raw["state_dict"])
    with pytest.raises(CheckpointError, match=r"unknown \['extra'\]"):
        from_published(raw["config"], {**raw["state_dict"], "extra": torch.zeros(1)})


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("moved", [True, False])
def test_parameters_equal_those_of_ghn3(with_config: bool, moved: bool) -> None:
    graph, config, state, expected = read_ghn3()
    if moved:  # where its published files have them
        state = {k.replace("gnn.0.c", "c").replace("gnn.0.input", "input"): v for k, v in state.items()}
    ghn = from_published(config if with_config else None, state)
    assert (ghn.config.encoder, ghn.config.layers, ghn.config.num_heads) == ("graphormer", 2, 8)
    with torch.no_grad():
        predicted = ghn.predict(graph)
    assert predicted.keys() == expected.keys()
    for key, tensor in expected.items():
        assert predicted[key].shape == tensor.shape
        assert (predicted[key] - tensor).abs().max() <= RELATIVE * tensor.abs().max(), key


def test_a_bare_state_dictionary_of_ghn2_says_its_configuration(peers: Path, published: GHN) -> None:
    state = torch.load(peers / "ghn2_random.pt", weights_only=True)["state_dict"]
    assert from_published(None, state).config == published.config
    flat = {k: v.flatten(1) if v.dim() == 4 else v for k, v in state.items()}
    assert all(torch.equal(a, b) for a, b in zip(
        from_published(None, flat).state_dict().values(), published.state_dict().values(), strict=True
    ))  # fmt: skip


def test_tensors_that_do_not_fit_are_named() -> None:
    _, config, state, _ = read_ghn3()
    key = "gnn.1.ff.net.0.weight"
    for wrong, message in (
        (torch.zeros(3, 4), r"encoder.layers.1.inner.weight' has shape \(3, 4\), expected \(64, 16\)"),
        (torch.full_like(state[key], torch.nan), "encoder.layers.1.inner.weight' holds values that are NaN"),
        (state[key].int(), "expected dense floating-point numbers"),
    ):
        with pytest.raises(CheckpointError, match=message):
            from_published(config, {**state, key: wrong})
    with pytest.raises(CheckpointError, match=r"no tensor 'decoder\.conv\.2\.weight'"):
        from_published(None, {"a.weight": torch.zeros(1)})
