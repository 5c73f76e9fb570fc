"""Parameters used directly, outside any layer; parameters that reach no output; unknown functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ghnq.errors import GhnqWarning, GraphError
from ghnq.graph import ArchGraph, trace

SHAPE = (3, 8, 8)


class Owner(nn.Module):
    """A convolution, then a function of its output and of a parameter that no layer owns."""

    def __init__(self, shape: tuple[int, ...], function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.inner = nn.Module()
        self.inner.p = nn.Parameter(torch.ones(shape))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x), self.inner.p)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)  # [2, 64, 3]


# function of (activation [2, 3, 8, 8], parameter): shape of the parameter, its node, its role, the node's shape
KNOWN: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], Any], str, str, tuple[int, ...]]] = {
    "x @ W": ((3, 5), lambda x, p: tokens(x) @ p, "conv", "class_weight", (5, 3, 1, 1)),
    "W @ x": ((5, 3), lambda x, p: p @ x.flatten(2), "conv", "class_weight", (5, 3, 1, 1)),
    "addmm": ((3, 5), lambda x, p: torch.addmm(torch.ones(5), x.mean((2, 3)), p), "conv", "class_weight", (5, 3, 1, 1)),
    "conv of a view": ((27, 4), lambda x, p: F.conv2d(x, p.t().view(4, 3, 3, 3)), "conv", "weight", (4, 3, 3, 3)),
    "offset of channels": ((3, 1, 1), lambda x, p: x + p, "bias", "class_bias", (3, 1, 1, 1)),
    "offset in place": ((1, 3, 1, 1), lambda x, p: x.add_(p), "bias", "class_bias", (3, 1, 1, 1)),
    "offset from the left": ((3, 1, 1), lambda x, p: p + x, "bias", "class_bias", (3, 1, 1, 1)),
    "difference": ((3, 1, 1), lambda x, p: p - x, "bias", "class_bias", (3, 1, 1, 1)),
    "scalar offset": ((), lambda x, p: x + p, "bias", "class_bias", (1, 1, 1, 1)),
    "positions of tokens": ((1, 64, 3), lambda x, p: tokens(x) + p, "pos_enc", "bias", (1, 3, 8, 8)),
    "positions of an image": ((1, 3, 8, 8), lambda x, p: x + p, "pos_enc", "bias", (1, 3, 8, 8)),
    "positions, resized": (
        (1, 3, 4, 4), lambda x, p: x + F.interpolate(p, size=x.shape[-2:], mode="bilinear"), "pos_enc", "bias",
        (1, 3, 4, 4),
    ),
    "bias of the scores, by an index": (
        (9, 2), lambda x, p: x.flatten(2)[:, :2] + p[torch.arange(64) % 9].t(), "pos_enc", "bias", (9, 2, 1, 1),
    ),
}  # fmt: skip

UNTESTED: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], Any], str, tuple[int, ...]]] = {
    "layer scale": ((3, 1, 1), lambda x, p: x * p, "norm_weight", (3, 1, 1, 1)),
    "layer scale from the left": ((3,), lambda x, p: p * x.permute(0, 2, 3, 1), "norm_weight", (3, 1, 1, 1)),
    "layer scale in place": ((1, 3, 1, 1), lambda x, p: x.mul_(p), "norm_weight", (3, 1, 1, 1)),
    "divisor": ((3, 1, 1), lambda x, p: x / (p + 1), "norm_weight", (3, 1, 1, 1)),
    "temperature": ((), lambda x, p: x * p.exp(), "norm_weight", (1, 1, 1, 1)),
    "slope": ((3,), F.prelu, "bias", (3, 1, 1, 1)),
    "class token": ((1, 1, 3), lambda x, p: torch.cat([p.expand(2, -1, -1), tokens(x)], 1), "bias", (3, 1, 1, 1)),
    "prompts": ((1, 4, 3), lambda x, p: torch.cat([p.expand(2, -1, -1), tokens(x)], 1), "bias", (1, 3, 2, 2)),
    "mask token": ((3, 1, 1), lambda x, p: torch.where(torch.ones(8, 8) > 0, x, p), "bias", (3, 1, 1, 1)),
    "conv3d": (
        (4, 3, 1, 3, 3), lambda x, p: F.conv3d(x.unsqueeze(2), p, padding=(0, 1, 1)), "weight", (4, 3, 3, 3),
    ),
    "bilinear": ((5, 3, 3), lambda x, p: F.bilinear(x.mean((2, 3)), torch.ones(2, 3), p), "weight", (5, 3, 1, 3)),
}  # fmt: skip


def owner(graph: ArchGraph, name: str = "inner.p") -> tuple[str, str, tuple[int, ...] | None]:
    parameter = next(p for p in graph.parameters if p.name == name)
    node = graph.nodes[parameter.node]
    return node.op, parameter.role, node.shape


def agree(module: nn.Module) -> Iterator[ArchGraph]:
    for device in ("cpu", "meta"):
        for training in (True, False):
            yield trace(module.to(device).train(training), SHAPE)


@pytest.mark.parametrize("name", KNOWN)
def test_known_ops_give_no_warning(name: str) -> None:
    shape, function, op, role, node_shape = KNOWN[name]
    graphs = list(agree(Owner(shape, function)))
    assert owner(graphs[0]) == (op, role, node_shape)
    assert {p.name: p.shape for p in graphs[0].parameters} == {"conv.weight": (3, 3, 1, 1), "inner.p": shape}
    assert len(set(graphs)) == 1


@pytest.mark.parametrize("name", UNTESTED)
def test_other_parameters_become_other_nodes_with_a_warning(name: str) -> None:
    shape, function, role, node_shape = UNTESTED[name]
    with pytest.warns(GhnqWarning, match=r"trained on ops that own the parameter 'inner\.p'.*untested") as caught:
        graphs = list(agree(Owner(shape, function)))
    assert len(caught) == 4  # one for each run, and none that the op is passed through
    assert owner(graphs[0]) == ("other", role, node_shape)
    assert len(set(graphs)) == 1


def test_the_node_of_a_parameter_is_between_its_inputs_and_its_users() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1, bias=False)
            self.gamma = nn.Parameter(torch.ones(4, 1, 1))
            self.second = nn.Conv2d(4, 4, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return x + self.second(x * self.gamma)

    with pytest.warns(GhnqWarning, match="gamma"):
        graph = trace(Block(), SHAPE)
    assert [node.op for node in graph.nodes] == ["input", "conv", "other", "conv", "sum"]
    assert graph.edges == ((0, 1), (1, 2), (1, 4), (2, 3), (3, 4))


def test_a_weight_made_of_several_parameters() -> None:
    module = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 5))
    with pytest.warns(GhnqWarning, match=r"own the parameter '0\.parametrizations\.weight\.original0'"):
        graph = trace(module, SHAPE)
    assert owner(graph, "0.parametrizations.weight.original1") == ("conv", "weight", (4, 3, 3, 3))
    assert owner(graph, "0.parametrizations.weight.original0") == ("other", "norm_weight", (4, 1, 1, 1))
    assert [node.op for node in graph.nodes] == ["input", "other", "conv", "bias", "conv", "bias"]


def test_a_small_network_over_constants_becomes_a_chain() -> None:
    """Swin V2 makes the bias of its scores by an MLP over a table of coordinates."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.mlp = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 4, bias=False))
            self.register_buffer("table", torch.zeros(64, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).flatten(2) + self.mlp(self.table).t()

    with pytest.warns(GhnqWarning, match=r"'mlp\.0\.weight'"):
        graph = trace(Biased(), SHAPE)
    names = ["mlp.0.weight", "mlp.0.bias", "mlp.2.weight"]
    assert [owner(graph, name)[:2] for name in names] == [
        ("other", "weight"), ("other", "norm_weight"), ("other", "weight"),
    ]  # fmt: skip


def test_a_weight_made_of_activations_is_a_product() -> None:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1, bias=False)
            self.kernel = nn.Linear(4, 36, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return F.conv2d(x, self.kernel(x.mean((0, 2, 3))).view(1, 4, 3, 3), padding=1)

    graph = trace(Dynamic(), SHAPE)
    assert [node.op for node in graph.nodes] == ["input", "conv", "conv", "cse"]
    assert graph.edges == ((0, 1), (1, 2), (1, 3), (2, 3))


def test_two_attentions_written_differently_are_one_graph() -> None:
    class Attention(nn.Module):
        def __init__(self, *, fused: bool) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 2, 2)
            self.qkv = nn.Linear(8, 24)
            self.table = nn.Parameter(torch.zeros(2, 16, 16))
            self.out = nn.Linear(8, 8)
            self.fused = fused

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).flatten(2).transpose(1, 2)
            q, k, v = self.qkv(x).view(2, 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
            if self.fused:
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.table)
            else:
                y = F.dropout((q @ k.mT / 2 + self.table).softmax(-1), 0.1, self.training) @ v
            return self.out(y.transpose(1, 2).reshape(2, 16, 8))

    fused, by_hand = trace(Attention(fused=True), SHAPE), trace(Attention(fused=False), SHAPE)
    assert [n.op for n in fused.nodes] == ["input", "conv", "bias", "conv", "bias", "pos_enc", "msa", "conv", "bias"]
    assert [n.op for n in by_hand.nodes] == [n.op for n in fused.nodes]
    assert by_hand.edges == fused.edges
    assert by_hand.parameters == fused.parameters


@pytest.mark.parametrize("widths", [{}, {"kdim": 6, "vdim": 6}])
def test_cross_attention_with_a_learned_query(widths: dict[str, int]) -> None:
    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, widths.get("kdim", 8), 2, 2)
            self.probe = nn.Parameter(torch.zeros(1, 1, 8))
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True, **widths)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).flatten(2).transpose(1, 2)
            return self.attention(self.probe.expand(2, -1, -1), x, x)[0]  # type: ignore[no-any-return]

    module = Pooling()
    with pytest.warns(GhnqWarning, match="'probe'"):
        graph = trace(module, SHAPE)
    assert {p.name for p in graph.parameters} == {name for name, _ in module.named_parameters()}
    assert [n.op for n in graph.nodes].count("msa") == 1


class Heads(nn.Module):
    """One or two heads, and parameters that lead nowhere."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.use = use
        self.body = nn.Linear(192, 6)
        self.head = nn.Linear(6, 4)
        self.spare = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.body(x.flatten(1))
        if self.use == "never":
            return self.head(x)
        spare = self.spare(x)
        if self.use == "training only":
            return (self.head(x), spare) if self.training else self.head(x)
        return {"dropped": self.head(x), "second": (self.head(x), spare), "mean": (self.head(x) + spare) / 2}[self.use]


@pytest.mark.parametrize("use", ["never", "dropped", "training only"])
def test_parameters_that_reach_no_output_are_named(use: str) -> None:
    with pytest.warns(GhnqWarning, match="nothing is predicted for the parameters 'spare.weight', 'spare.bias'"):
        graphs = list(agree(Heads(use)))
    assert graphs[0].unused == ("spare.weight", "spare.bias")
    assert len(set(graphs)) == 1
    assert ArchGraph.from_json(graphs[0].to_json()) == graphs[0]


def test_long_lists_of_parameters_are_shortened() -> None:
    module = Heads("never")
    module.more = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])
    with pytest.warns(GhnqWarning, match=r"'more\.1\.weight' and 5 more"):
        trace(module, SHAPE)


def test_a_second_head_is_followed() -> None:
    graph = trace(Heads("second"), SHAPE)
    assert graph.unused == ()
    roles = {p.name: p.role for p in graph.parameters}
    assert {roles[f"{head}.weight"] for head in ("head", "spare")} == {"class_weight"}
    assert graph.nodes[-1].name == "head"
    assert [graph.nodes[i].name for i in graph.further_outputs] == ["spare"]
    assert ArchGraph.from_json(graph.to_json()) == graph


def test_both_of_two_averaged_heads_make_classes() -> None:
    graph = trace(Heads("mean"), SHAPE)
    assert {p.name for p in graph.parameters if p.role == "class_weight"} == {"head.weight", "spare.weight"}


def test_an_output_computed_from_the_first_comes_last() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(192, 4), nn.Linear(4, 7)

        def forward(self, x: Tensor) -> Any:
            y = self.a(x.flatten(1))
            return y, self.b(y)

    graph = trace(Chain(), SHAPE, output="0")
    assert (graph.nodes[-1].name, graph.num_outputs, graph.further_outputs) == ("b", 4, ())
    assert trace(Chain(), SHAPE, output="1").num_outputs == 7
    assert trace(Chain(), SHAPE, num_classes=4) == graph
    with pytest.raises(
        GraphError, match=r"'0' \[N, 4\], '1' \[N, 7\], and it is not clear which of them is the logits"
    ):
        trace(Chain(), SHAPE)


def test_no_parameter_at_all_reaches_the_output() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 2)

    with pytest.raises(GraphError, match=r"no parameter reaches the output \(the module has 'fc.weight', 'fc.bias'\)"):
        trace(Idle(), SHAPE)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.fft.fft2(x).real, "fft_fft2"),
        (lambda x: torch.linalg.svd(x)[1], "linalg_svd"),
        (lambda x: F.conv3d(x.unsqueeze(2), torch.ones(3, 3, 1, 1, 1)), "conv3d"),
        (lambda x: F.fractional_max_pool2d(x, 2, output_size=4), "fractional_max_pool2d"),
    ],
)
def test_an_unknown_op_is_passed_through(function: Callable[[Tensor], Tensor], name: str) -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return function(self.conv(x))

    with pytest.warns(GhnqWarning, match=rf"the op `{name}\w*` is not in the vocabulary; it is passed through"):
        graph = trace(Body(), SHAPE)
    assert [node.op for node in graph.nodes] == ["input", "conv", "bias"]


def test_ordinary_networks_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), SHAPE)
