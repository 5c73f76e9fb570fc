"""Networks: every one runs, every parameter learns, and the analytic costs are the module's own."""

from collections import Counter

import pytest
import torch
from torch import nn

from ghnq.errors import SpaceError
from ghnq.graph.ops import KERNEL_OPS
from ghnq.graph.tracing.trace import trace
from ghnq.spaces import convnets
from ghnq.spaces.convnets.layer_factory import LayerFactory, MetaLayerFactory
from ghnq.spaces.convnets.specs import Cells, Edge, Genotype, Spec, Stem
from tests.spaces.convnets.multiply_add_hooks import MultiplyAddHooks

SAMPLE = [(split, index) for split in convnets.SPLITS for index in range(14 if split == "train" else 8)]
INPUTS = [(3, 32, 32), (1, 8, 8), (1, 16, 16), (3, 28, 28), (3, 64, 64)]


@pytest.mark.parametrize(("split", "index"), SAMPLE)
def test_networks_run_and_learn(split, index):
    torch.manual_seed(0)
    spec = convnets.spec(split, index)
    for shape in INPUTS[:3]:
        network = convnets.build(spec, in_channels=shape[0], num_classes=7)
        logits = network(torch.randn(3, *shape))
        assert logits.shape == (3, 7)
        assert logits.isfinite().all()
        logits.square().sum().backward()
        idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not idle
        # At 8x8 some taps of a window see padding alone, and at 1x1 a norm can hide a weight: so at 32x32 only.
        if shape == INPUTS[0]:
            assert all(p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(("split", "index"), SAMPLE[::3])
def test_costs_are_the_modules_own(split, index):
    spec = convnets.spec(split, index)
    for shape in INPUTS:
        network = convnets.build(spec, in_channels=shape[0], num_classes=7).eval()
        hooks = MultiplyAddHooks(network)
        network(torch.zeros(1, *shape))
        cost = convnets.cost(spec, input_shape=shape, num_classes=7)
        assert cost.multiply_adds == hooks.multiply_adds
        assert cost.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("split", "index"), SAMPLE[::3])
def test_ops_and_depth_are_the_graphs_own(split, index):
    spec = convnets.spec(split, index)
    graph = trace(convnets.build(spec, device="meta"))
    cost = convnets.cost(spec)
    assert cost.ops == Counter(node.op for node in graph.nodes)
    assert cost.multiply_adds == graph.multiply_adds
    weighted = [node.op in KERNEL_OPS for node in graph.nodes]
    longest = [0] * len(graph.nodes)
    for node in range(len(graph.nodes)):
        before = [longest[u] for u, v in graph.edges if v == node]
        longest[node] = max(before, default=0) + weighted[node]
    assert cost.depth == max(longest)


@pytest.mark.parametrize("split", list(convnets.SPLITS))
def test_convolutions_with_a_norm_have_no_bias(split):
    spec = convnets.spec(split, 2)
    network = convnets.build(spec, device="meta")
    units = [m for m in network.modules() if hasattr(m, "norm")]
    assert units
    for unit in units:
        assert (unit.norm is None) == (unit.conv.bias is not None)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == (split != "bnfree")


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("train", 1), ("deep", 0), ("bnfree", 0), ("dense", 1)])
def test_meta_is_the_same_network_without_storage(split, index):
    spec = convnets.spec(split, index)
    meta, real = convnets.build(spec, device="meta"), convnets.build(spec)
    assert all(tensor.is_meta for tensor in [*meta.parameters(), *meta.buffers()])
    assert not any(tensor.is_meta for tensor in [*real.parameters(), *real.buffers()])
    assert str(meta) == str(real)
    assert [(n, t.shape, t.dtype) for n, t in meta.state_dict().items()] == [
        (n, t.shape, t.dtype) for n, t in real.state_dict().items()
    ]
    meta.load_state_dict(real.state_dict(), assign=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(meta.eval()(images), real.eval()(images))


LAYERS = [
    (
        "conv",
        {"inputs": 6, "outputs": 12, "kernel": (3, 3), "stride": (2, 2), "dilation": 1, "groups": 1, "bias": True},
    ),
    (
        "conv",
        {"inputs": 6, "outputs": 6, "kernel": (5, 5), "stride": (1, 1), "dilation": 2, "groups": 6, "bias": False},
    ),
    (
        "conv",
        {"inputs": 6, "outputs": 6, "kernel": (1, 7), "stride": (1, 2), "dilation": 1, "groups": 1, "bias": False},
    ),
    ("batch_norm", {"channels": 12}),
    ("linear", {"inputs": 6, "outputs": 4}),
]


@pytest.mark.parametrize(("kind", "arguments"), LAYERS)
@pytest.mark.parametrize("statistics", [True, False])
def test_copied_layers_are_pytorchs(kind, arguments, statistics):
    """Compares with what PyTorch's own constructor makes: this is what notices a new PyTorch."""
    copied = getattr(MetaLayerFactory(norm=True, running_statistics=statistics), kind)(**arguments)
    made = getattr(LayerFactory(norm=True, device=torch.device("meta"), running_statistics=statistics), kind)(
        **arguments
    )
    assert type(copied) is type(made)
    tensors = ("_parameters", "_buffers")
    assert {k: v for k, v in vars(copied).items() if k not in tensors} == {
        k: v for k, v in vars(made).items() if k not in tensors
    }
    for group in tensors:
        ours, theirs = vars(copied)[group], vars(made)[group]
        assert list(ours) == list(theirs)
        for name, tensor in theirs.items():
            if tensor is None:
                assert ours[name] is None
                continue
            assert type(ours[name]) is type(tensor)
            assert ours[name].shape == tensor.shape
            assert ours[name].dtype == tensor.dtype
            assert ours[name].requires_grad == tensor.requires_grad


def test_copied_layers_share_nothing():
    make = MetaLayerFactory(norm=True, running_statistics=True)
    one, other = make.batch_norm(8), make.batch_norm(8)
    one.register_forward_hook(lambda *_: None)
    assert not other._forward_hooks
    assert not make.batch_norm(8)._forward_hooks
    assert one.weight is not other.weight
    assert one.running_mean is not other.running_mean


def test_without_running_statistics_a_meta_network_runs_functionally():
    spec = convnets.spec("train", 3)
    skeleton = convnets.build(spec, device="meta", running_statistics=False)
    assert not list(skeleton.buffers())
    values = {name: torch.randn(p.shape) * 0.1 for name, p in skeleton.named_parameters()}
    assert torch.func.functional_call(skeleton, values, (torch.randn(2, 3, 32, 32),)).isfinite().all()


def test_initialisation_follows_pytorchs_generator():
    spec = convnets.spec("train", 4)
    first, second, third = (_seeded(spec, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.classifier.weight, third.classifier.weight)


def _seeded(spec, seed):
    torch.manual_seed(seed)
    return convnets.build(spec)


def test_a_cell_computes_what_its_genotype_says():
    """One cell network by hand: no norms, every operation of the genotype written out again."""
    normal = Genotype(
        nodes=(
            (Edge(op="conv_3x3", source=0), Edge(op="max_pool_3x3", source=1)),
            (Edge(op="skip", source=1), Edge(op="avg_pool_3x3", source=2)),
        ),
        concat=(2, 3),
    )
    reduction = Genotype(nodes=((Edge(op="max_pool_3x3", source=1),),), concat=(2,))
    body = Cells(count=3, channels=(8, 12, 16), preprocess=True, normal=normal, reduction=reduction)
    network = convnets.build(
        Spec(norm=None, stem=Stem(channels=8, kernel=3, stride=1), body=body, hidden=None)
    ).double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    state = network.state_dict()
    f = nn.functional

    def unit(x, name):
        kernel = state[f"{name}.conv.weight"].shape[-1]
        return f.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=kernel // 2).relu()

    stem = unit(images, "stem")
    before, now = unit(stem, "cells.0.preprocess0"), unit(stem, "cells.0.preprocess1")
    two = unit(before, "cells.0.edges.0to2") + f.max_pool2d(now, 3, 1, 1)
    three = now + f.avg_pool2d(two, 3, 1, 1, count_include_pad=False)
    x = torch.cat((two, three), dim=1)
    for cell in (1, 2):
        x = f.max_pool2d(unit(x, f"cells.{cell}.preprocess1"), 3, 2, 1)
    expected = x.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=1e-12)


def test_names_are_readable():
    names = {
        name for i in range(40) for name, _ in convnets.build(convnets.spec("train", i), device="meta").named_modules()
    }
    assert {
        "stem.conv",
        "stages.0.0.unit.norm",
        "stages.1.0.depthwise.conv",
        "cells.2.preprocess1.conv",
        "classifier",
    } <= names


@pytest.mark.parametrize("arguments", [{"in_channels": 0}, {"num_classes": 0}, {"num_classes": -2}])
def test_wrong_counts(arguments):
    with pytest.raises(SpaceError, match="at least 1"):
        convnets.build(convnets.spec("train", 0), **arguments)


def test_building_on_meta_initialises_nothing(monkeypatch):
    """That is what makes it fast; `benchmarks/trace_speed.py` has the figure."""
    called = []
    for kind in (nn.Conv2d, nn.Linear, nn.BatchNorm2d):
        monkeypatch.setattr(kind, "reset_parameters", lambda self: called.append(self))
    for index in range(20):
        convnets.build(convnets.spec("train", index), device="meta")
    on_meta = len(called)
    convnets.build(convnets.spec("train", 0), device="cpu")
    assert len(called) > on_meta  # the trap works
    assert on_meta <= 20  # at most a pattern for each kind of layer, not one for each layer
