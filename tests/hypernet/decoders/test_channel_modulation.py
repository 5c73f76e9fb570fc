"""Channel factors: filters of wide layers differ, values and gradients equal an obvious slow computation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ghnq.graph import trace
from ghnq.graph.batching.batch import GraphBatch
from ghnq.graph.ir import ArchGraph, Node, Parameter, Role, Shape
from ghnq.hypernet import GHN, GHNConfig
from ghnq.hypernet.decoders.channel_modulation import MAX_CHANNELS, ChannelModulation
from ghnq.hypernet.decoders.decoder import WeightRequest
from ghnq.hypernet.decoders.modulated_tiling import tile_modulated
from ghnq.hypernet.tiling import Tiling, tile, tile_block

SMALL = GHNConfig(hidden=8, max_shape=(12, 10, 5, 5), decoder_hidden=(4, 6), channel_rank=3)


def layer(op: str, role: Role, shape: Shape, node_shape: Shape | None = None) -> ArchGraph:
    """Input, a node that owns one parameter `p`, and a global average."""
    four = node_shape or (*shape, 1, 1, 1)[:4]
    nodes = (Node("input", "input"), Node(op, "it", four), Node("glob_avg", "mean"))
    return ArchGraph(nodes, ((0, 1), (1, 2)), (Parameter("p", shape, 1, role),), (3, 32, 32), 10)


def predict(config: GHNConfig, graph: ArchGraph, *, channels_last: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    ghn = GHN(config)
    if len(graph.parameters[0].shape) == 1:  # of thousands of float32 numbers two may be equal by chance
        ghn = ghn.double()
    with torch.no_grad():
        return ghn.predict(graph, channels_last=channels_last)


def distinct_rows(weight: Tensor) -> int:
    return len(torch.unique(weight.flatten(1), dim=0))


@pytest.mark.parametrize("decoder", ["conv", "lowrank"])
@pytest.mark.parametrize(
    ("op", "role", "shape"),
    [
        ("conv", "weight", (2048, 512, 1, 1)),
        ("conv", "weight", (512, 512, 3, 3)),
        ("conv", "weight", (2048, 3, 3, 3)),
        ("conv", "weight", (1000, 70, 1, 7)),
        ("conv", "weight", (2048, 300)),
        ("conv", "class_weight", (1000, 130)),
        ("sep_conv", "weight", (2048, 1, 3, 3)),
        ("sep_conv", "weight", (960, 1, 5, 5)),
        ("sep_conv", "weight", (500, 1, 1, 1)),
        ("bn", "norm_weight", (2048,)),
        ("bn", "norm_bias", (2048,)),
        ("bias", "bias", (4096,)),
    ],
)
def test_every_filter_of_a_new_hypernetwork_is_distinct(decoder: str, op: str, role: Role, shape: Shape) -> None:
    config = GHNConfig(hidden=16, decoder_hidden=(16, 16), channel_rank=16, decoder=decoder)  # type: ignore[arg-type]
    weight = predict(config, layer(op, role, shape))["p"]
    assert tuple(weight.shape) == shape
    assert bool(weight.isfinite().all())
    assert distinct_rows(weight[:, None]) == shape[0]
    if len(shape) > 1 and shape[1] > 64:  # the in-channels as well
        assert distinct_rows(weight.transpose(0, 1)) == shape[1]
    tiled = predict(config.model_copy(update={"channel_rank": 0}), layer(op, role, shape))["p"]
    if role != "class_weight" or decoder == "lowrank":
        assert distinct_rows(tiled[:, None]) <= 64


def test_filters_stay_distinct_behind_a_norm() -> None:
    """A batch norm undoes a common factor: filters must differ in direction, too."""
    config = GHNConfig(hidden=16, decoder_hidden=(16, 16), channel_rank=16)
    for graph in (layer("conv", "weight", (512, 64, 3, 3)), layer("sep_conv", "weight", (512, 1, 3, 3))):
        filters = predict(config, graph)["p"].flatten(1).double()
        filters = filters / filters.norm(dim=1, keepdim=True)
        similarity = (filters @ filters.t()).abs().fill_diagonal_(0)
        assert float(similarity.max()) < 1 - 1e-9


def test_beyond_the_codes_channels_repeat() -> None:
    config = GHNConfig(hidden=16, decoder_hidden=(16, 16), channel_rank=4)
    more = MAX_CHANNELS + 100
    for op, shape in (("conv", (more, 70, 1, 1)), ("sep_conv", (more, 1, 3, 3))):
        weight = predict(config, layer(op, "weight", shape))["p"]  # type: ignore[arg-type]
        assert distinct_rows(weight) == MAX_CHANNELS
        assert torch.equal(weight[MAX_CHANNELS:], weight[:100])
    into = predict(config, layer("conv", "weight", (8, more, 1, 1)))["p"]
    assert distinct_rows(into.transpose(0, 1)) == MAX_CHANNELS
    bias = predict(config, layer("bias", "bias", (more,)))["p"]
    assert torch.equal(bias[MAX_CHANNELS:], bias[:100])
    assert len(bias.unique()) > 0.99 * MAX_CHANNELS


class Mixed(nn.Module):
    """Layers that are wider than 64 channels and layers that are not, of all kinds."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3)
        self.norm = nn.BatchNorm2d(64)
        self.depthwise = nn.Conv2d(64, 64, 3, groups=64)
        self.wide = nn.Conv2d(64, 130, 1)
        self.wide_norm = nn.BatchNorm2d(130)
        self.wide_depthwise = nn.Conv2d(130, 130, 3, groups=130)
        self.up = nn.ConvTranspose2d(130, 40, 2)
        self.narrow = nn.Conv2d(40, 20, 1)
        self.fc = nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide_norm(self.wide(self.depthwise(self.norm(self.stem(x)))))
        logits: Tensor = self.fc(self.narrow(self.up(self.wide_depthwise(x))).mean((2, 3)))
        return logits


@pytest.mark.parametrize("choices", [{}, {"identity": True}, {"decoder": "lowrank"}, {"depthwise": "shared"}])
@pytest.mark.parametrize("channels_last", [False, True])
def test_layers_that_are_not_wider_are_bit_identical(choices: dict[str, object], channels_last: bool) -> None:
    graph = trace(Mixed(), (3, 16, 16))
    config = GHNConfig(hidden=16, decoder_hidden=(16, 16), channel_rank=5).model_copy(update=choices)
    torch.manual_seed(0)
    modulated = GHN(config)
    plain = GHN(config.model_copy(update={"channel_rank": 0}))
    shared = {k: v for k, v in modulated.state_dict().items() if "modulation" not in k}
    plain.load_state_dict(shared)
    with torch.no_grad():
        ours, theirs = (ghn.predict(graph, channels_last=channels_last) for ghn in (modulated, plain))
    wide = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert wide == {
        *("wide.weight", "wide.bias", "wide_norm.weight", "wide_norm.bias"),
        *("wide_depthwise.weight", "wide_depthwise.bias", "up.weight"),
    }


def slow(block: Tensor, h: Tensor, request: WeightRequest, modulation: ChannelModulation) -> Tensor:
    """The formula with the whole tensor of factors: gain * tiled block * (1 + sum_r c_r A B), then the identity."""
    out, in_, height, width = request.shape
    out_codes = torch.stack([modulation.out_codes[o % MAX_CHANNELS] for o in range(out)])
    if request.depthwise:
        largest = modulation.position_codes.shape[0]
        rows = [(max(0, largest // 2 - height // 2) + y) % largest for y in range(height)]
        columns = [(max(0, largest // 2 - width // 2) + x) % largest for x in range(width)]
        positions = modulation.position_codes[rows][:, columns]
        factors = 1 + torch.einsum("sr,or,yxr->soyx", modulation.depthwise(h), out_codes, positions)[:, :, None]
    else:
        in_codes = torch.stack([modulation.in_codes[i % MAX_CHANNELS] for i in range(in_)])
        factors = 1 + torch.einsum("sr,or,ir->soi", modulation.dense(h), out_codes, in_codes)[..., None, None]
    weights = request.tiling.gain * tile(block, request.shape) * factors
    zero = torch.zeros_like(block).detach()
    return weights + tile_block(zero, request.tiling).detach()


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8), st.integers(1, 3)),
    block=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    slots=st.integers(1, 3),
    depthwise=st.booleans(),
    channels_last=st.booleans(),
    identity=st.booleans(),
    strip=st.sampled_from([1, 50, 1 << 17]),
)
def test_values_and_gradients_equal_the_formula(
    shape: tuple[int, int, int, int],
    block: tuple[int, int],
    slots: int,
    depthwise: bool,
    channels_last: bool,
    identity: bool,
    strip: int,
) -> None:
    o, i, height, width = shape
    i, columns = (1, 1) if depthwise else (i, block[1])
    kind = "depthwise" if depthwise else "dense"
    tiling = Tiling((o, i, height, width), 0.37, channels_last, kind if identity else None)  # type: ignore[arg-type]
    request = WeightRequest(depthwise, False, tiling)
    modulation = ChannelModulation(hidden=4, rank=2, max_kernel=5).double()
    h = torch.randn(slots, 4, dtype=torch.double, requires_grad=True)
    source = torch.randn(slots, block[0], columns, min(height, 5), width, dtype=torch.double, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ghnq.hypernet.decoders.modulated_tiling.STRIP_ELEMENTS", strip)
        actual, expected = modulation(source, h, request), slow(source, h, request, modulation)
        torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)
        with torch.no_grad():
            assert torch.equal(modulation(source, h, request), actual)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        if not depthwise:
            assert all(kernel.is_contiguous(memory_format=layout) for kernel in actual.unbind(0))
        direction = torch.randn_like(expected)
        inputs = [source, h, *modulation.parameters()]
        got = torch.autograd.grad((actual * direction).sum(), inputs, allow_unused=True)
        wanted = torch.autograd.grad((expected * direction).sum(), inputs, allow_unused=True)
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_by_finite_differences(channels_last: bool) -> None:
    tiling = Tiling((7, 5, 2, 1), 0.5, channels_last, "dense")
    tensors = [torch.randn(s, dtype=torch.double, requires_grad=True) for s in ((2, 3, 2, 2, 1), (2, 7, 2), (5, 2))]
    assert torch.autograd.gradcheck(lambda b, left, right: tile_modulated(b, left, right, tiling), tensors)


def test_the_gradient_of_a_gradient_that_is_not_contiguous() -> None:
    tiling = Tiling((7, 5, 2, 3), 0.5)
    tensors = [torch.randn(s, dtype=torch.double, requires_grad=True) for s in ((2, 3, 2, 2, 3), (2, 7, 2), (5, 2))]
    direction = torch.randn(3, 2, 5, 7, 2, dtype=torch.double).permute(4, 3, 2, 1, 0)
    grads = [
        torch.autograd.grad(tile_modulated(*tensors, tiling), tensors, grad)  # type: ignore[arg-type]
        for grad in (direction, direction.contiguous(), torch.ones(()).double().expand(2, 7, 5, 2, 3))
    ]
    for a, b in zip(grads[0], grads[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_a_transposed_weight_is_the_plain_one_transposed() -> None:
    plain = predict(SMALL, layer("conv", "weight", (30, 14, 3, 3)))["p"]
    stored = predict(SMALL, layer("conv", "weight", (14, 30, 3, 3), (30, 14, 3, 3)))["p"]
    assert torch.equal(stored, plain.transpose(0, 1))
    assert distinct_rows(stored.transpose(0, 1)) == 30


@pytest.mark.parametrize("classes", [5, 12, 40])
@pytest.mark.parametrize("width", [9, 25])
def test_classification_layers_are_modulated_once(classes: int, width: int) -> None:
    """Also where there are as many classes as out-channels in `max_shape` (12)."""
    config = SMALL.model_copy(update={"num_classes": classes})
    torch.manual_seed(0)
    ghn = GHN(config).double()
    plain = GHN(config.model_copy(update={"channel_rank": 0})).double()
    plain.load_state_dict({k: v for k, v in ghn.state_dict().items() if "modulation" not in k})
    graph = layer("conv", "class_weight", (classes, width))
    seen: list[Tensor] = []
    assert isinstance(ghn.decoder, nn.Module)
    handle = ghn.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0]))
    with torch.no_grad():
        ours, theirs = ghn.predict(graph)["p"], plain.predict(graph)["p"]
    handle.remove()
    if classes <= 12 and width <= 10:
        assert torch.equal(ours, theirs)
        return
    modulation = ghn.decoder.modulation
    assert isinstance(modulation, ChannelModulation)
    left, right = modulation.dense_codes(seen[0], (classes, width, 1, 1))
    torch.testing.assert_close(ours, theirs * (1 + left[0] @ right.t()), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(30, 25, 3, 3), (30, 1, 3, 3)])
def test_the_identity_kernel_is_added_after_the_factors(shape: Shape) -> None:
    op = "sep_conv" if shape[1] == 1 else "conv"
    without, with_ = (
        predict(SMALL.model_copy(update={"identity": flag}), layer(op, "weight", shape))["p"] for flag in (False, True)
    )
    expected = torch.zeros(shape)
    for channel in range(min(shape[0], 25)):
        expected[channel, channel if shape[1] > 1 else 0, 1, 1] = 1
    if shape[1] == 1:
        expected[:, 0, 1, 1] = 1
    torch.testing.assert_close(with_ - without, expected, rtol=0, atol=1e-6)


def test_vectors_get_an_offset_before_they_are_bounded() -> None:
    torch.manual_seed(0)
    ghn = GHN(SMALL)
    plain = GHN(SMALL.model_copy(update={"channel_rank": 0}))
    plain.load_state_dict({k: v for k, v in ghn.state_dict().items() if "modulation" not in k})
    modulation = ghn.vector_modulation
    assert modulation is not None
    for role, inverse, offsets in (
        ("norm_weight", lambda v: 2 * torch.logit(v / 2), modulation.scale_offsets),
        ("norm_bias", lambda v: 5 * torch.atanh(v), modulation.shift_offsets),
    ):
        graph = layer("bn", role, (50,))  # type: ignore[arg-type]
        with torch.no_grad():
            h = ghn.encode(GraphBatch.from_graphs([graph]))[1:2]
            ours, theirs = ghn.predict(graph)["p"], plain.predict(graph)["p"]
            torch.testing.assert_close(inverse(ours), inverse(theirs) + offsets(h, 50)[0], rtol=1e-4, atol=1e-5)


def test_every_code_and_coefficient_gets_a_gradient() -> None:
    torch.manual_seed(0)
    ghn = GHN(SMALL)
    graph = trace(Mixed(), (3, 16, 16))
    loss = sum((tensor * torch.randn_like(tensor)).sum() for tensor in ghn.predict(graph).values())
    torch.as_tensor(loss).backward()
    for name, parameter in ghn.named_parameters():
        if "modulation" in name:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name


def test_copies_of_a_filter_learn_to_differ_more() -> None:
    """Tiled filters have one gradient for all copies; modulated ones separate under a loss that asks for it."""
    torch.manual_seed(0)
    ghn = GHN(SMALL)
    graph = layer("conv", "weight", (24, 10, 1, 1))
    target = torch.randn(24, 10, 1, 1)
    optimizer = torch.optim.Adam(ghn.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (ghn.predict(graph)["p"] - target).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    best_tiled = (target - (target[:12] + target[12:]).repeat(2, 1, 1, 1) / 2).square().mean()
    assert losses[-1] < 0.8 * float(best_tiled)


def test_a_table_wider_than_the_decoder_is_modulated_too() -> None:
    table = predict(SMALL, layer("pos_enc", "bias", (1, 400, 30)))["p"][0]
    assert len(torch.unique(table, dim=0)) == 400
    assert len(torch.unique(table.t(), dim=0)) == 30


def test_checkpoints_keep_the_factors(tmp_path: object) -> None:
    torch.manual_seed(0)
    ghn, graph = GHN(SMALL), layer("conv", "weight", (30, 25, 3, 3))
    ghn.save_pretrained(str(tmp_path))
    again = GHN.from_pretrained(str(tmp_path))
    assert again.config.channel_rank == 3
    with torch.no_grad():
        assert torch.equal(again.predict(graph)["p"], ghn.predict(graph)["p"])
