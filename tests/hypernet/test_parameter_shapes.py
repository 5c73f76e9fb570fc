"""Parameters of every shape and role: exact shape, finite, bounded by role, transposed where stored so."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.graph.batching.batch import GraphBatch
from ghnq.graph.ir import ArchGraph, Node, Parameter, Role, Shape
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.model import GHN
from ghnq.hypernet.parameter_normalisation import weight_gain

ROLES = ("weight", "bias", "norm_weight", "norm_bias")


def one_parameter(op: str, role: Role, shape: Shape, node_shape: Shape | None = None) -> ArchGraph:
    """Input, a node that owns the parameter, and a global average behind it."""
    four = node_shape or (*shape, 1, 1, 1, 1)[:4]
    nodes = (Node("input", "input"), Node(op, "it", four), Node("glob_avg", "mean"))  # type: ignore[arg-type]
    return ArchGraph(nodes, ((0, 1), (1, 2)), (Parameter("it.p", shape, 1, role),), (3, 32, 32), 10)


def hypernet(**choices: object) -> GHN:
    torch.manual_seed(0)
    return GHN(GHNConfig(hidden=8, max_shape=(12, 10, 5, 5), decoder_hidden=(4, 6), **choices))  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("op", ["other", "pos_enc"])
@pytest.mark.parametrize(
    "shape",
    [(), (1,), (7,), (100,), (5, 1, 1), (1, 1, 30), (1, 197, 48), (169, 4), (1, 20, 9, 9), (3, 2, 3, 3, 3)],
)  # fmt: skip
def test_any_shape_is_predicted_exactly_and_bounded_by_role(op: str, role: Role, shape: Shape) -> None:
    ghn = hypernet()
    tensor = ghn.predict(one_parameter(op, role, shape))["it.p"]
    assert tuple(tensor.shape) == shape
    assert bool(tensor.isfinite().all())
    low, high = {"norm_weight": (0, 2), "weight": (-math.inf, math.inf)}.get(role, (-1, 1))
    assert bool((tensor > low).all() and (tensor < high).all())
    (gradient,) = torch.autograd.grad(tensor.square().sum(), ghn.embed.channel.weight)
    assert bool(gradient.isfinite().all())
    raw = hypernet(normalise=False).predict(one_parameter(op, role, shape))["it.p"]
    table = sum(s > 1 for s in shape) > 1
    expected = {
        "norm_weight": 2 / (1 + torch.exp(-raw / 2)),
        "weight": raw * (weight_gain(shape) if table else 1.0),
    }.get(role, torch.tanh(raw / 5))
    torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-7)


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=6),
    role=st.sampled_from(ROLES),
    op=st.sampled_from(["other", "pos_enc", "conv", "sep_conv", "dil_conv"]),
)
def test_odd_shapes_come_out_exactly(shape: list[int], role: Role, op: str) -> None:
    if op.endswith("conv"):
        role = "weight"
    tensor = hypernet().predict(one_parameter(op, role, tuple(shape)))["it.p"]
    assert list(tensor.shape) == shape
    assert bool(tensor.isfinite().all())


@pytest.mark.parametrize("shape", [(1, 197, 48), (169, 4), (1, 16, 14, 14)])
def test_positions_of_a_table_differ(shape: Shape) -> None:
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden=8, max_shape=(12, 10, 5, 5)))
    table = ghn.predict(one_parameter("pos_enc", "bias", shape))["it.p"].detach()
    axis = 1 if len(shape) == 4 else len(shape) - 1
    rows = table.movedim(axis, -1).reshape(-1, shape[axis])
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") + torch.eye(len(rows))
    assert float(distance.min()) > 1e-6


def test_cells_of_a_table_are_those_of_the_kernel_it_is_read_from() -> None:
    ghn = hypernet(normalise=False)
    table = ghn.predict(one_parameter("pos_enc", "bias", (1, 60, 7), (7, 60, 1, 1)))["it.p"]
    kernel = ghn.predict(one_parameter("pos_enc", "bias", (1, 7, 3, 20), (7, 60, 1, 1)))["it.p"]
    torch.testing.assert_close(table.transpose(1, 2).reshape(1, 7, 3, 20), kernel)
    h = ghn.encode(GraphBatch.from_graphs([one_parameter("pos_enc", "bias", (1, 60, 7), (7, 60, 1, 1))]))[1:2]
    decoder = ghn.decoder.dense
    grid = torch.relu(decoder.positions(h)).view(4, 25).t()
    cells = decoder.matrix(torch.relu(decoder.mix(grid))).view(25, 12, 10)  # type: ignore[operator]
    for position in (0, 1, 24, 25, 59):  # a channel's 25 cells, then the next channel
        torch.testing.assert_close(table[0, position], cells[position % 25, :7, position // 25])


@pytest.mark.parametrize("role", ["weight", "class_weight"])
@pytest.mark.parametrize("shape", [(6, 11), (30, 14), (6, 9, 3), (6, 9, 3, 3), (1, 8, 3, 3), (4, 3, 2, 3, 3)])
def test_a_transposed_weight_is_the_plain_one_transposed(role: Role, shape: Shape) -> None:
    ghn = hypernet(depthwise="shared")
    out_first = (shape[1], shape[0], *shape[2:])
    node = (*out_first, 1, 1)[:4]
    plain = ghn.predict(one_parameter("conv", role, out_first, node))["it.p"]
    stored = ghn.predict(one_parameter("conv", role, shape, node))["it.p"]
    assert tuple(stored.shape) == shape
    assert torch.equal(stored, plain.transpose(0, 1))


def test_plain_and_transposed_weights_of_one_shape_are_kept_apart() -> None:
    nodes = (Node("input", "input"), Node("conv", "a", (6, 11, 1, 1)), Node("conv", "b", (11, 6, 1, 1)))
    weights = (Parameter("a", (11, 6), 1, "weight"), Parameter("b", (11, 6), 2, "weight"))
    graph = ArchGraph(nodes, ((0, 1), (1, 2)), weights, (3, 32, 32), 10)
    assert [g.transposed for g in GraphBatch.from_graphs([graph]).groups] == [True, False]
    both = hypernet().predict(graph)
    assert both["a"].shape == both["b"].shape == (11, 6)


def test_a_volume_kernel_is_scaled_by_its_own_fan_in() -> None:
    shape = (6, 4, 3, 3, 3)
    raw = hypernet(normalise=False).predict(one_parameter("conv", "weight", shape))["it.p"]
    scaled = hypernet().predict(one_parameter("conv", "weight", shape))["it.p"]
    torch.testing.assert_close(scaled, raw * math.sqrt(2 / (4 * 27)))


def test_of_an_op_without_an_embedding_only_the_shape_is_embedded() -> None:
    ghn = hypernet()
    assert ghn.embed.op.weight.shape == (15, 8)
    op, shape = torch.tensor([15, 0, 15]), torch.tensor([[8, 1, 1, 1], [8, 1, 1, 1], [16, 1, 1, 1]])
    embedded = ghn.embed(op, shape)
    torch.testing.assert_close(embedded[0], embedded[1] - ghn.embed.op.weight[0])
    assert not torch.equal(embedded[0], embedded[2])
    (gradient,) = torch.autograd.grad(embedded.sum(), ghn.embed.op.weight)
    assert gradient.sum(1).nonzero().flatten().tolist() == [0]
