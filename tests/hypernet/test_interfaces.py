"""The protocols of encoders and decoders: every registered one satisfies them, and new ones work end to end."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from ghnq.graph.batching.batch import GraphBatch
from ghnq.hypernet import GHN, GHNConfig
from ghnq.hypernet.decoders import DECODERS
from ghnq.hypernet.decoders.decoder import Decoder, Shape4, WeightRequest
from ghnq.hypernet.decoders.tiled_decoder import TiledDecoder
from ghnq.hypernet.encoders import ENCODERS
from ghnq.hypernet.encoders.encoder import Encoder
from ghnq.hypernet.tiling import Tiling, tile_block
from tests.hypernet.graphs import random_graph

CONFIG = GHNConfig(hidden=16, max_shape=(12, 10, 5, 5), decoder_hidden=(4, 6), rank=4, layers=2)
RANKS = (0, 3)
DENSE_SHAPES: list[Shape4] = [(12, 10, 5, 5), (1, 1, 1, 1), (5, 3, 3, 3), (30, 25, 3, 1), (13, 1, 1, 7), (7, 41, 9, 9)]
REQUESTS = [
    *(WeightRequest(False, False, Tiling(shape, 0.5)) for shape in DENSE_SHAPES),
    *(WeightRequest(True, False, Tiling((o, 1, k, k), 2.0)) for o, k in ((7, 3), (40, 5), (12, 1), (40, 9))),
    *(WeightRequest(False, True, Tiling((10, i, 1, 1))) for i in (10, 6, 31)),
    WeightRequest(False, False, Tiling((5, 5, 3, 3), 0.5, channels_last=True, identity="dense")),
    WeightRequest(True, False, Tiling((40, 1, 3, 3), 0.5, channels_last=True, identity="depthwise")),
]


def groups_for(requests: Sequence[WeightRequest]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1 + i % 3, CONFIG.hidden, generator=generator, dtype=torch.double, requires_grad=True)
        for i in range(len(requests))
    ]


def build_decoder(name: str, channel_rank: int) -> Decoder:
    torch.manual_seed(0)
    decoder = DECODERS[name](CONFIG.model_copy(update={"channel_rank": channel_rank}))
    assert isinstance(decoder, nn.Module)
    decoder.double()
    return decoder


def build_encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    encoder = ENCODERS[name](CONFIG)
    assert isinstance(encoder, nn.Module)
    return encoder


def parameters_of(module: Encoder | Decoder) -> dict[str, nn.Parameter]:
    assert isinstance(module, nn.Module)
    return dict(module.named_parameters())


def test_configurations_know_every_registered_name() -> None:
    assert set(get_args(GHNConfig.model_fields["encoder"].annotation)) == set(ENCODERS)
    assert set(get_args(GHNConfig.model_fields["decoder"].annotation)) == set(DECODERS)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoders_have_the_signature_of_the_protocol(name: str) -> None:
    forward = inspect.signature(type(build_decoder(name, 0)).forward)
    assert list(forward.parameters) == list(inspect.signature(Decoder.forward).parameters)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoders_have_the_signature_of_the_protocol(name: str) -> None:
    forward = inspect.signature(type(build_encoder(name)).forward)
    assert list(forward.parameters) == list(inspect.signature(Encoder.forward).parameters)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoders_return_the_shapes_that_are_requested(name: str, rank: int) -> None:
    decoder, groups = build_decoder(name, rank), groups_for(REQUESTS)
    weights = decoder(groups, REQUESTS)
    for tensor, h, request in zip(weights, groups, REQUESTS, strict=True):
        assert tuple(tensor.shape) == (len(h), *request.shape)
        assert tensor.dtype == h.dtype
        assert bool(tensor.isfinite().all())
    storages = [t.untyped_storage().data_ptr() for t in (*weights, *groups, *parameters_of(decoder).values())]
    assert len(set(storages)) == len(storages)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoded_slots_depend_on_their_embedding_alone(name: str, rank: int) -> None:
    decoder, groups = build_decoder(name, rank), groups_for(REQUESTS)
    order = torch.randperm(len(REQUESTS), generator=torch.Generator().manual_seed(1)).tolist()
    together = decoder(groups, REQUESTS)
    shuffled = decoder([groups[i] for i in order], [REQUESTS[i] for i in order])
    for position, i in enumerate(order):
        torch.testing.assert_close(shuffled[position], together[i], rtol=1e-10, atol=1e-12)
        for slot in range(len(groups[i])):
            (alone,) = decoder([groups[i][slot : slot + 1]], [REQUESTS[i]])
            torch.testing.assert_close(alone[0], together[i][slot], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoders_apply_gain_and_identity(name: str, rank: int) -> None:
    decoder, groups = build_decoder(name, rank), groups_for(REQUESTS)
    plain = [WeightRequest(r.depthwise, r.classifier, Tiling(r.tiling.shape)) for r in REQUESTS]
    for weight, unscaled, request in zip(decoder(groups, REQUESTS), decoder(groups, plain), REQUESTS, strict=True):
        identity = tile_block(torch.zeros(len(unscaled), 1, 1, *request.shape[2:]).double(), request.tiling)
        torch.testing.assert_close(weight, request.tiling.gain * unscaled + identity, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_gradients_of_decoders_equal_finite_differences(name: str, rank: int) -> None:
    decoder, groups = build_decoder(name, rank), groups_for(REQUESTS)
    directions = [torch.randn(len(h), *r.shape).double() for h, r in zip(groups, REQUESTS, strict=True)]

    def loss() -> Tensor:
        return torch.stack([(w * d).sum() for w, d in zip(decoder(groups, REQUESTS), directions, strict=True)]).sum()

    tensors = {**parameters_of(decoder), **{f"h{i}": h for i, h in enumerate(groups)}}
    gradients = torch.autograd.grad(loss(), list(tensors.values()))
    for (label, tensor), gradient in zip(tensors.items(), gradients, strict=True):
        step = 1e-6 * torch.randn_like(tensor)
        with torch.no_grad():
            tensor += step
            above = loss()
            tensor -= 2 * step
            below = loss()
            tensor += step
        expected, actual = (above - below) / 2, (gradient * step).sum()
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-9, msg=lambda text, x=label: f"{x}: {text}")


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoded_graphs_are_independent_of_the_others(name: str) -> None:
    encoder = build_encoder(name)
    graphs = [random_graph(seed, size=8 + 5 * seed) for seed in range(4)]
    h = [torch.randn(len(graph), CONFIG.hidden) for graph in graphs]
    joined = torch.cat(h)
    before = joined.clone()
    together = encoder(joined, GraphBatch.from_graphs(graphs))
    assert together.shape == joined.shape
    assert together.dtype == joined.dtype
    assert torch.equal(joined, before)
    assert together.untyped_storage().data_ptr() != joined.untyped_storage().data_ptr()
    for part, x, graph in zip(together.split([len(graph) for graph in graphs]), h, graphs, strict=True):
        torch.testing.assert_close(encoder(x, GraphBatch.from_graphs([graph])), part, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoders_have_a_gradient_for_input_and_every_parameter(name: str) -> None:
    encoder = build_encoder(name)
    batch = GraphBatch.from_graphs([random_graph(seed, size=20) for seed in range(3)])
    h = torch.randn(len(batch.op), CONFIG.hidden, requires_grad=True)
    (encoder(h, batch) * torch.randn(h.shape)).sum().backward()  # type: ignore[no-untyped-call]
    for label, tensor in {**parameters_of(encoder), "h": h}.items():
        assert tensor.grad is not None, label
        assert bool(tensor.grad.isfinite().all()), label
        assert bool(tensor.grad.any()), label


class Neighbours(nn.Module):
    """A new encoder: adds a linear function of the embeddings of a node's predecessors."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.message = nn.Linear(hidden, hidden)

    def forward(self, h_ND: Tensor, batch: GraphBatch) -> Tensor:
        offsets = [0]
        for graph in batch.graphs:
            offsets.append(offsets[-1] + len(graph))
        edges = [(u + o, v + o) for graph, o in zip(batch.graphs, offsets, strict=False) for u, v in graph.edges]
        source, target = torch.tensor(edges).t()
        return h_ND.index_add(0, target, self.message(h_ND)[source])


class Constant(nn.Module):
    """A new block decoder: one number for each weight of a block, and one for each slot."""

    def __init__(self, hidden: int, max_shape: Shape4) -> None:
        super().__init__()
        self.block = nn.Parameter(torch.randn(max_shape))
        self.scale = nn.Linear(hidden, 1)

    def forward(
        self, groups: Sequence[Tensor], shapes: Sequence[Shape4], tilings: Sequence[Tiling | None] | None = None
    ) -> list[Tensor]:
        blocks = [
            self.scale(h)[..., None, None, None] * self.block[:o, :i, :y, :x]
            for h, (o, i, y, x) in zip(groups, shapes, strict=True)
        ]
        chosen = tilings or [None] * len(blocks)
        return [b if tiling is None else tile_block(b, tiling) for b, tiling in zip(blocks, chosen, strict=True)]


class Whole(nn.Module):
    """A new decoder without blocks: a weight is a product of a function of the embedding and of cosines."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.scale = nn.Linear(hidden, 1)

    def forward(self, groups: Sequence[Tensor], requests: Sequence[WeightRequest]) -> list[Tensor]:
        weights = []
        for h, request in zip(groups, requests, strict=True):
            count = torch.Size(request.shape).numel()
            plain = self.scale(h) * torch.cos(torch.arange(count))
            weight = request.tiling.gain * plain.view(len(h), *request.shape)
            request.tiling.add_identity(weight)
            weights.append(weight)
        return weights


def new_encoder(config: GHNConfig) -> Encoder:
    return Neighbours(config.hidden)


def new_tiled_decoder(config: GHNConfig) -> Decoder:
    return TiledDecoder(max_shape=config.max_shape, dense=Constant(config.hidden, config.max_shape), depthwise=None)


def new_decoder(config: GHNConfig) -> Decoder:
    return Whole(config.hidden)


@pytest.mark.parametrize("decoder", [new_tiled_decoder, new_decoder])
def test_a_new_encoder_and_a_new_decoder_work_end_to_end(decoder: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "new", new_encoder)
    monkeypatch.setitem(DECODERS, "new", decoder)  # type: ignore[arg-type]
    torch.manual_seed(0)
    ghn = GHN(CONFIG.model_copy(update={"encoder": "new", "decoder": "new", "identity": True}))
    graphs = [random_graph(seed, size=25) for seed in range(3)]
    for graph, predicted in zip(graphs, ghn(GraphBatch.from_graphs(graphs)), strict=True):
        assert {k: tuple(v.shape) for k, v in predicted.items()} == {p.name: p.shape for p in graph.parameters}
        for name, tensor in ghn.predict(graph).items():
            torch.testing.assert_close(tensor, predicted[name], rtol=1e-4, atol=1e-5)
    torch.stack([t.square().sum() for t in ghn.predict(graphs[0]).values()]).sum().backward()  # type: ignore[no-untyped-call]
    for module in (ghn.encoder, ghn.decoder):
        for label, parameter in parameters_of(module).items():
            assert parameter.grad is not None, label
            assert bool(parameter.grad.any()), label
