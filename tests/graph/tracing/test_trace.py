"""Layers and functions: their nodes, the parameters these own, the roles, and equivalent ways to write them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ghnq.errors import GhnqWarning
from ghnq.graph import ArchGraph, trace

SHAPE = (4, 8, 8)


class Net(nn.Module):
    """A convolution, the part under test, and a classification layer."""

    def __init__(self, part: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.part = part if not isinstance(part, nn.Module) else None
        self.layer = part if isinstance(part, nn.Module) else None
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.fc = nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.layer(x) if self.layer is not None else self.part(self, x)
        return self.fc(x.flatten(1))


def traced(part: Callable[..., Any], shape: tuple[int, ...] = SHAPE, **layers: Any) -> ArchGraph:
    net = Net(part, **layers)
    net.eval()(torch.zeros(2, *shape))
    graph = trace(net, shape)
    assert trace(net.train(), shape) == graph
    assert trace(net.to("meta"), shape) == graph
    return graph


def middle(graph: ArchGraph) -> list[str]:
    """The ops between stem and classification layer."""
    assert [node.op for node in graph.nodes[:2]] == ["input", "conv"]
    assert [node.op for node in graph.nodes[-2:]] == ["conv", "bias"]
    return [node.op for node in graph.nodes[2:-2]]


def roles(graph: ArchGraph) -> dict[str, str]:
    return {p.name: p.role for p in graph.parameters}


LAYERS: dict[str, tuple[nn.Module, list[str], tuple[int, ...] | None]] = {
    "conv": (nn.Conv2d(4, 6, 3, 2, bias=False), ["conv"], (6, 4, 3, 3)),
    "conv with bias": (nn.Conv2d(4, 6, 3), ["conv", "bias"], (6, 4, 3, 3)),
    "conv, circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), ["conv", "bias"], (6, 4, 3, 3)),
    "conv, reflect": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), ["conv", "bias"], (6, 4, 3, 3)),
    "conv, same": (nn.Conv2d(4, 6, 3, padding="same", bias=False), ["conv"], (6, 4, 3, 3)),
    "dilated, one group": (nn.Conv2d(4, 4, 3, dilation=2, bias=False), ["conv"], (4, 4, 3, 3)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False), ["sep_conv"], (4, 1, 3, 3)),
    "grouped": (nn.Conv2d(4, 4, 3, groups=2), ["sep_conv", "bias"], (4, 2, 3, 3)),
    "depthwise, dilated": (nn.Conv2d(4, 4, 3, groups=4, dilation=2, bias=False), ["dil_conv"], (4, 1, 3, 3)),
    "depthwise, dilated in one axis": (
        nn.Conv2d(4, 4, 3, groups=4, dilation=(1, 2), bias=False), ["sep_conv"], (4, 1, 3, 3),
    ),
    "1xN": (nn.Conv2d(4, 4, (1, 5), bias=False), ["conv"], (4, 4, 1, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, 2, bias=False), ["conv"], (6, 4, 3, 3)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), ["sep_conv"], (6, 2, 3, 3)),
    "batch norm": (nn.BatchNorm2d(4), ["bn"], (4, 1, 1, 1)),
    "batch norm, batch statistics": (nn.BatchNorm2d(4, track_running_stats=False), ["bn"], (4, 1, 1, 1)),
    "batch norm, cumulative": (nn.BatchNorm2d(4, momentum=None), ["bn"], (4, 1, 1, 1)),
    "batch norm without parameters": (nn.BatchNorm2d(4, affine=False), [], None),
    "group norm": (nn.GroupNorm(2, 4), ["ln"], (4, 1, 1, 1)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), ["ln"], (4, 1, 1, 1)),
    "instance norm without parameters": (nn.InstanceNorm2d(4), [], None),
    "layer norm": (nn.LayerNorm(8), ["ln"], (8, 1, 1, 1)),
    "layer norm over all": (nn.LayerNorm((4, 8, 8), bias=False), ["ln"], (256, 1, 1, 1)),
    "rms norm": (nn.RMSNorm(8), ["ln"], (8, 1, 1, 1)),
    "max pool": (nn.MaxPool2d(3, 2), ["max_pool"], (1, 1, 3, 3)),
    "max pool, 1x2": (nn.MaxPool2d((1, 2)), ["max_pool"], (1, 1, 1, 2)),
    "average pool": (nn.AvgPool2d(2, ceil_mode=True), ["avg_pool"], (1, 1, 2, 2)),
    "adaptive average": (nn.AdaptiveAvgPool2d(1), ["glob_avg"], None),
    "adaptive average to 2x2": (nn.AdaptiveAvgPool2d((2, None)), ["glob_avg"], None),
    "adaptive max": (nn.AdaptiveMaxPool2d(2), ["max_pool"], (1, 1, 4, 4)),
    "linear on the last axis": (nn.Linear(8, 5, bias=False), ["conv"], (5, 8, 1, 1)),
    "identity": (nn.Identity(), [], None),
    "dropouts": (nn.Sequential(nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout()), [], None),
    "activations": (
        nn.Sequential(
            nn.ReLU(), nn.ReLU(True), nn.ReLU6(True), nn.LeakyReLU(), nn.ELU(True), nn.SELU(), nn.CELU(), nn.GELU(),
            nn.SiLU(True), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(),
            nn.Softsign(), nn.LogSigmoid(), nn.Hardtanh(), nn.Threshold(0.1, 0), nn.Softmax(1), nn.Softmax2d(),
        ),
        [],
        None,
    ),
    "resizing": (
        nn.Sequential(nn.Upsample(scale_factor=2), nn.PixelUnshuffle(2), nn.PixelShuffle(2), nn.ChannelShuffle(2)),
        [],
        None,
    ),
    "padding": (nn.Sequential(nn.ZeroPad2d(1), nn.ReflectionPad2d(1), nn.ReplicationPad2d((1, 0, 2, 0))), [], None),
    "unfold": (nn.Unfold(2), [], None),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    layer, ops, shape = LAYERS[name]
    expected = tuple(copy.deepcopy(layer)(torch.zeros(2, *SHAPE)).shape[1:])
    graph = traced(copy.deepcopy(layer))
    assert middle(graph) == ops
    if ops:
        assert graph.nodes[2].shape == shape
        if list(layer.parameters()):
            assert graph.nodes[2].name == "layer"
    assert graph.nodes[2 + len(ops) - 1].output_shape == (expected if ops else SHAPE)


def test_the_activations_of_the_table_are_all_shape_preserving() -> None:
    x = torch.rand(2, *SHAPE)
    assert LAYERS["activations"][0](x).shape == x.shape


PARTS: dict[str, tuple[Callable[[Any, Tensor], Tensor], list[str]]] = {
    "sum of two": (lambda m, x: x + F.max_pool2d(x, 3, 1, 1), ["max_pool", "sum"]),
    "sum of one and the same": (lambda m, x: x + x, []),
    "sum with an activation of itself": (lambda m, x: x + F.relu(x), []),
    "sum with a number": (lambda m, x: 1 + x * 0.5 - 2, []),
    "sum with a constant": (lambda m, x: x + torch.ones(8), []),
    "python's sum": (lambda m, x: sum([x, F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1)]), [
        "max_pool", "avg_pool", "sum", "sum",
    ]),
    "torch.add with keywords": (
        lambda m, x: torch.add(input=x, other=F.max_pool2d(x, 3, 1, 1), alpha=2), ["max_pool", "sum"],
    ),
    "in place": (lambda m, x: F.max_pool2d(x, 3, 1, 1).add_(x), ["max_pool", "sum"]),
    "concatenation": (lambda m, x: torch.cat([x, F.max_pool2d(x, 3, 1, 1)], dim=1), ["max_pool", "concat"]),
    "concatenation with itself": (lambda m, x: torch.cat((x, F.relu(x)), 1), []),
    "concatenation with a constant": (lambda m, x: torch.cat((x, torch.zeros(2, 1, 8, 8, device=x.device)), 1), []),
    "split and back": (lambda m, x: torch.cat([*x.chunk(2, 1), *torch.split(x, [1, 3], 1)], 1), []),
    "iterating": (lambda m, x: torch.stack(list(iter(x.transpose(0, 1)))).transpose(0, 1), []),
    "swish by hand": (lambda m, x: x * torch.sigmoid(x), []),
    "hard swish by hand": (lambda m, x: x * F.relu6(x + 3) / 6, []),
    "gate": (lambda m, x: x * F.adaptive_avg_pool2d(x, 1).sigmoid(), ["glob_avg", "cse"]),
    "gate in place": (lambda m, x: x.mul_(F.adaptive_avg_pool2d(x, 1).sigmoid()), ["glob_avg", "cse"]),
    "gate as method": (lambda m, x: x.mul(F.adaptive_avg_pool2d(x, 1)), ["glob_avg", "cse"]),
    "mean over pixels": (lambda m, x: x.mean((2, 3)), ["glob_avg"]),
    "mean over pixels, negative": (lambda m, x: torch.mean(x, dim=[-1, -2], keepdim=True), ["glob_avg"]),
    "mean over channels": (lambda m, x: x.mean(1, keepdim=True), []),
    "shuffle": (lambda m, x: x.view(x.shape[0], 2, 2, 8, 8).transpose(1, 2).reshape(x.size(0), -1, 8, 8), []),
    "slices": (lambda m, x: x[:, ::2, 1:, :-1] - x[:, 1::2, 1:, :-1], []),
    "writing into a slice": (lambda m, x: _write(x), ["max_pool"]),
    "drop path": (lambda m, x: x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.5), []),
    "drop path with rand": (lambda m, x: x.div(0.9) * (torch.rand((x.shape[0], 1, 1, 1)) + 0.9).floor_(), []),
    "types": (lambda m, x: x.to(torch.float16).float().type_as(x).to("cpu").contiguous().clone(), []),
    "where and masks": (lambda m, x: torch.where(x > 0, x, x.exp() - 1).masked_fill(x < -1, 0.0), []),
    "maximum": (lambda m, x: torch.maximum(x, x.flip(1)).clamp(min=0).clamp_(max=6), []),
    "fixed filter": (lambda m, x: F.conv2d(x, torch.ones(4, 1, 3, 3), groups=4), []),
    "squeeze": (lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze().unsqueeze(-1), ["glob_avg"]),
    "max pool with indices": (lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0], ["max_pool"]),
    "attention": (
        lambda m, x: F.scaled_dot_product_attention(x.flatten(2), x.flatten(2), x.flatten(2)), ["msa"],
    ),
    "attention by hand": (
        lambda m, x: (x.flatten(2) @ x.flatten(2).transpose(1, 2) * 0.5).softmax(-1) @ x.flatten(2), ["msa"],
    ),
    "attention by bmm": (
        lambda m, x: torch.bmm(F.dropout(torch.bmm(x.flatten(2), x.flatten(2).mT).softmax(-1)), x.flatten(2)), ["msa"],
    ),
    "softmax gates are no attention": (lambda m, x: x.softmax(1) @ torch.ones(8, 2), []),
    "einsum": (lambda m, x: torch.einsum("bchw,bdhw->bcd", x, x), []),
    "statistics": (lambda m, x: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True) + 1e-5), []),
    "interpolation to a size": (lambda m, x: F.interpolate(x, size=x.shape[-1] * 2, mode="bilinear"), []),
    "keyword input": (lambda m, x: F.relu(input=F.avg_pool2d(input=x, kernel_size=2)), ["avg_pool"]),
    "size arithmetic": (lambda m, x: x.reshape(len(x), x.numel() // len(x)) if x.dim() == 4 else x, []),
}  # fmt: skip


def _write(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :2] = F.max_pool2d(x, 3, 1, 1)[:, :2]
    return out


@pytest.mark.filterwarnings("ignore:.*random in eval mode:ghnq.errors.GhnqWarning")
@pytest.mark.parametrize("name", PARTS)
def test_functions(name: str) -> None:
    part, ops = PARTS[name]
    graph = traced(part)
    assert middle(graph) == ops
    last = len(graph) - 2
    if name == "writing into a slice":
        assert graph.edges == ((0, 1), (1, 2), (1, 3), (2, 3), (3, 4))
    elif ops:
        assert graph.predecessors[last] == (last - 1,)
    assert roles(graph)["fc.weight"] == "class_weight"


def test_an_in_place_write_changes_all_references_to_the_tensor() -> None:
    def part(_: Any, x: Tensor) -> Tensor:
        held = F.max_pool2d(x, 3, 1, 1)
        view = held[:, :2]
        view += F.avg_pool2d(x, 3, 1, 1)[:, :2]
        return held

    graph = traced(part)
    ops = [node.op for node in graph.nodes]
    assert ops == ["input", "conv", "max_pool", "avg_pool", "sum", "conv", "bias"]
    assert graph.predecessors[5] == (2, 4)


def test_an_in_place_write_does_not_change_a_clone() -> None:
    def part(_: Any, x: Tensor) -> Tensor:
        twin = x.clone()
        twin += F.max_pool2d(x, 3, 1, 1)
        return x

    assert middle(traced(part)) == []


def test_a_shared_layer_belongs_to_its_first_use() -> None:
    def part(m: Any, x: Tensor) -> Tensor:
        return m.shared(F.relu(m.shared(x)))

    graph = traced(part, shared=nn.Conv2d(4, 4, 3, padding=1))
    assert middle(graph) == ["conv", "bias", "conv", "bias"]
    assert {p.name: p.node for p in graph.parameters}["shared.weight"] == 2
    assert [n.shape for n in graph.nodes[2:6]] == [(4, 4, 3, 3), (4, 1, 1, 1)] * 2
    assert [n.name for n in graph.nodes[2:6]] == ["shared"] * 4


def test_tied_parameters_have_one_name() -> None:
    def net(device: str) -> nn.Module:
        layers = [nn.Conv2d(4, 4, 3, padding=1, bias=False, device=device) for _ in range(2)]
        layers[1].weight = layers[0].weight
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10, device=device))

    graph = trace(net("cpu"), SHAPE)
    assert trace(net("meta"), SHAPE) == graph
    assert [p.name for p in graph.parameters] == ["0.weight", "3.weight", "3.bias"]
    assert [node.op for node in graph.nodes] == ["input", "conv", "conv", "conv", "bias"]


def test_parameters_in_functional_calls() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList([torch.zeros(6, 3, 3, 3), torch.zeros(6), torch.zeros(2, 6)])
            self.scale = nn.Parameter(torch.ones(6))
            self.shift = nn.Parameter(torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.conv2d(x, self.weights[0], self.weights[1])
            x = torch.batch_norm(x, self.scale, self.shift, None, None, True, 0.1, 1e-5, False)
            return F.linear(x.mean((2, 3)), self.weights[2].view(2, 6) * 1.0)

    with pytest.warns(GhnqWarning, match="statistics of the batch"):
        graph = trace(Functional(), (3, 8, 8))
    assert [node.op for node in graph.nodes] == ["input", "conv", "bias", "bn", "glob_avg", "conv"]
    assert roles(graph) == {
        "weights.0": "weight",
        "weights.1": "bias",
        "scale": "norm_weight",
        "shift": "norm_bias",
        "weights.2": "class_weight",
    }


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), {"1.weight", "1.bias"}),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 10, 1), nn.Flatten()), {"1.weight", "1.bias"}),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 10, bias=False), nn.Dropout(), nn.LogSoftmax(1)), {"1.weight"}),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.ReLU()), set()),
        (nn.Sequential(nn.Conv2d(4, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), set()),
        (nn.Sequential(nn.Conv2d(4, 10, 8), nn.Flatten()), set()),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.BatchNorm1d(10)), set()),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10)), {"3.weight", "3.bias"}),
    ],
)
def test_the_classification_layer(head: nn.Module, expected: set[str]) -> None:
    graph = trace(head, SHAPE)
    assert {name for name, role in roles(graph).items() if role.startswith("class")} == expected
    assert graph.num_outputs == 10


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor
    features: Any


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y, x: (y, x),
        lambda y, x: [y],
        lambda y, x: {"logits": y, "features": x},
        lambda y, x: Output(None, y, x),
        lambda y, x: ([y, x], {"aux": x}),
    ],
)
def test_the_first_tensor_of_an_output_counts(wrap: Callable[[Tensor, Tensor], Any]) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(256, 10)

        def forward(self, x: Tensor) -> Any:
            return wrap(self.fc(x.flatten(1)), x)

    graph = trace(Wrapped(), SHAPE)
    assert graph.num_outputs == 10
    assert roles(graph) == {"fc.weight": "class_weight", "fc.bias": "class_bias"}


def test_an_output_from_several_nodes_ends_in_one() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(256, 10, bias=False)
            self.b = nn.Linear(256, 10, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.maximum(self.a(x.flatten(1)), self.b(x.flatten(1)))

    graph = trace(Twins(), SHAPE)
    assert [node.op for node in graph.nodes] == ["input", "conv", "conv", "sum"]
    assert graph.nodes[3].name == "maximum"
    assert set(roles(graph).values()) == {"weight"}


def test_images_of_other_kinds() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 10 * 20, 3)), (1, 12, 22))
    assert graph.input_shape == (1, 12, 22)
    assert graph.multiply_adds == 4 * 200 * 9 + 3 * 800
    signal = trace(
        nn.Sequential(nn.Conv1d(2, 4, 3), nn.MaxPool1d(2), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(12, 3)), (2, 8)
    )
    assert [n.shape for n in signal.nodes[1:5]] == [(4, 2, 1, 3), (4, 1, 1, 1), (1, 1, 1, 2), (4, 1, 1, 1)]


def test_half_precision_modules() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).half(), (3, 8, 8))
    assert graph.num_parameters == 112 + 290


@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention(batch_first: bool) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2) if batch_first else x.flatten(2).transpose(0, 1)
            out, weights = self.attention(tokens, tokens, tokens, average_attn_weights=False)
            assert weights.shape == (2, 2, 4, 4)
            return out if batch_first else out.transpose(0, 1)

    graph = traced(Attention(), (4, 4, 2))
    assert middle(graph) == ["conv", "bias", "msa", "conv", "bias"]
    assert {p.name: p.node for p in graph.parameters if "attention" in p.name} == {
        "layer.attention.in_proj_weight": 2,
        "layer.attention.in_proj_bias": 3,
        "layer.attention.out_proj.weight": 5,
        "layer.attention.out_proj.bias": 6,
    }


def test_transformer_layers() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    graph = traced(nn.Sequential(nn.Flatten(2), layer), (4, 4, 2))
    attention = ["conv", "bias", "msa", "conv", "bias", "sum", "ln"]
    assert middle(graph) == [*attention, "conv", "bias", "conv", "bias", "sum", "ln"]


def body() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.body, x, use_reentrant=False)


class HalfTyped(Checkpointed):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(x.to(memory_format=torch.channels_last))


@pytest.mark.parametrize(
    "wrap",
    [Checkpointed, HalfTyped, lambda: torch.fx.symbolic_trace(body())],
    ids=["checkpoint", "autocast", "fx"],
)
def test_wrappers_do_not_change_the_graph(wrap: Callable[[], nn.Module]) -> None:
    graph, plain = trace(wrap(), SHAPE), trace(body(), SHAPE)
    assert [node.op for node in graph.nodes] == [node.op for node in plain.nodes]
    assert graph.edges == plain.edges
    assert [p.role for p in graph.parameters] == [p.role for p in plain.parameters]


class Standardised(nn.Conv2d):
    """Weight standardisation, by hand or through batch norm."""

    by_hand = True

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        if self.by_hand:
            flat = (flat - flat.mean(2, keepdim=True)) / (flat.std(2, keepdim=True) + 1e-5)
        else:
            flat = F.batch_norm(flat, None, None, training=True, momentum=0.0)
        return F.conv2d(x, flat.reshape_as(self.weight), self.bias, self.stride, self.padding)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_weight_may_be_computed_from_one_parameter(by_hand: bool) -> None:
    layer = Standardised(4, 6, 3)
    layer.by_hand = by_hand
    graph = traced(layer)
    assert middle(graph) == ["conv", "bias"]
    assert graph.nodes[2].shape == (6, 4, 3, 3)
    assert roles(graph)["layer.weight"] == "weight"
