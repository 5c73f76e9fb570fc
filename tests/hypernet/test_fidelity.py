"""Given the reference's own graph, embeddings and parameters equal the reference's (`../shared/peers/ghn2`)."""

from pathlib import Path

import pytest
import torch

from ghnq.errors import CheckpointError
from ghnq.graph.batch import GraphBatch
from ghnq.hypernet.model import GHN
from ghnq.hypernet.published import from_published
from tests.hypernet.peers import read_peer

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
