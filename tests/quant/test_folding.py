"""Folding: unchanged outputs, which norms are folded and which are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ghnq.errors import SchemeError
from ghnq.quant import estimate_batch_norm, fold_batch_norm
from ghnq.quant.data_flow import observe_data_flow
from ghnq.torch_compat import BatchNorm
from tests.quant.nets import PreActivation, Residual, images, network, randomise


class Net(nn.Module):
    """A forward pass written as a function of the modules."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], object], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self._forward = forward
        randomise(self)

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


def norms(module: nn.Module) -> int:
    return sum(isinstance(child, BatchNorm) for child in module.modules())


def assert_same(module: nn.Module, folded: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(folded(x), module(x), rtol=1e-10, atol=1e-10)


def test_exact_in_float64_and_to_1e_5_in_float32() -> None:
    x = images()
    net = estimate_batch_norm(network(), x)
    folded = fold_batch_norm(net, images=x[:2])
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x), rtol=0, atol=1e-5)
    net = net.double()
    assert_same(net, fold_batch_norm(net, images=x[:2].double()), x.double())


def test_folds_norms_after_layers_only() -> None:
    net = network()
    folded = fold_batch_norm(net, images=images(2))
    left = [name for name, child in folded.named_modules() if isinstance(child, BatchNorm)]
    assert left == ["4.bn0"]
    assert isinstance(folded.get_submodule("3.bn1"), nn.Identity)
    assert all(child.bias is not None for child in folded.modules() if isinstance(child, nn.Conv2d))
    assert observe_data_flow(net, images(2)).norm_pairs == (
        ("0", "1"),
        ("3.conv1", "3.bn1"),
        ("3.conv2", "3.bn2"),
        ("4.conv", "4.bn"),
        ("5.conv1", "5.bn1"),
        ("5.conv2", "5.bn2"),
        ("8", "9"),
    )


def test_the_module_is_not_changed() -> None:
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net[1].eval()
    modes = [child.training for child in net.modules()]
    folded = fold_batch_norm(net, images=images(2))
    assert not folded.training
    assert [child.training for child in net.modules()] == modes
    assert all(not child._forward_hooks and not child._forward_pre_hooks for child in net.modules())
    assert all(not child._forward_hooks and not child._forward_pre_hooks for child in folded.modules())
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in folded.parameters()}


def conv(i: int = 3, o: int = 4) -> nn.Module:
    return nn.Conv2d(i, o, 3, padding=1)


def bn(c: int = 4) -> nn.Module:
    return nn.BatchNorm2d(c)


NOT_FOLDED = {
    "output used twice": Net(lambda m, x: m.b(y := m.a(x)) + y, a=conv(), b=bn()),
    "output used by a function before": Net(lambda m, x: (y := m.a(x), y.mean() + m.b(y))[1], a=conv(), b=bn()),
    "output changed in place": Net(lambda m, x: m.b(m.a(x).relu_()), a=conv(), b=bn()),
    "output is an output": Net(lambda m, x: (m.b(y := m.a(x)), y), a=conv(), b=bn()),
    "output in a dict of outputs": Net(lambda m, x: {"y": (y := m.a(x)), "z": [m.b(y)]}, a=conv(), b=bn()),
    "two norms on it": Net(lambda m, x: m.b(y := m.a(x)) + m.c(y), a=conv(), b=bn(), c=bn()),
    "two layers on it": Net(lambda m, x: m.b(y := m.a(x)) + m.c(y), a=conv(), b=bn(), c=conv(4)),
    "layer runs twice": Net(lambda m, x: m.b(m.a(m.a(x))), a=conv(3, 3), b=bn(3)),
    "norm runs twice": Net(lambda m, x: m.b(m.b(m.a(x))), a=conv(), b=bn()),
    "something in between": Net(lambda m, x: m.b(torch.relu(m.a(x))), a=conv(), b=bn()),
    "concatenated": Net(lambda m, x: m.b(torch.cat([m.a(x), m.c(x)], 1)), a=conv(3, 2), c=conv(3, 2), b=bn()),
    "a view of it": Net(lambda m, x: m.b(m.a(x).flatten(2).unflatten(2, (16, 16))), a=conv(), b=bn()),
    "tokens, not channels": Net(lambda m, x: m.b(m.a(x.flatten(2))), a=nn.Linear(256, 3), b=nn.BatchNorm1d(3)),
}


@pytest.mark.parametrize("case", sorted(NOT_FOLDED))
def test_norms_that_cannot_be_folded(case: str) -> None:
    net = NOT_FOLDED[case].double()
    folded = fold_batch_norm(net, images=images(2).double())
    assert norms(folded) == norms(net)
    assert_same(net, folded, images(4).double())


FOLDED = {
    "identity and dropout between": Net(
        lambda m, x: m.b(m.d(m.i(m.a(x)))), a=conv(), i=nn.Identity(), d=nn.Dropout(0.5), b=bn()
    ),
    "no affine part": Net(lambda m, x: m.b(m.a(x)), a=conv(), b=nn.BatchNorm2d(4, affine=False)),
    "shape looked at": Net(lambda m, x: m.b(y := m.a(x)) * y.shape[1] * y.dim(), a=conv(), b=bn()),
    "relu in place behind": Net(lambda m, x: m.b(m.a(x)).relu_(), a=conv(), b=bn()),
    "linear": Net(lambda m, x: m.b(m.a(x.flatten(1))), a=nn.Linear(768, 5), b=nn.BatchNorm1d(5)),
    "1-D": Net(lambda m, x: m.b(m.a(x.flatten(2))), a=nn.Conv1d(3, 5, 3), b=nn.BatchNorm1d(5)),
    "3-D": Net(lambda m, x: m.b(m.a(x[:, None])), a=nn.Conv3d(1, 5, 3), b=nn.BatchNorm3d(5)),
    "keyword arguments": Net(lambda m, x: m.b(input=m.a(input=x)), a=conv(), b=bn()),
    "padding not of zeros": Net(
        lambda m, x: m.b(m.a(x)), a=nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), b=bn()
    ),
}


@pytest.mark.parametrize("case", sorted(FOLDED))
def test_norms_that_can_be_folded(case: str) -> None:
    net = FOLDED[case].double()
    folded = fold_batch_norm(net, images=images(2).double())
    assert norms(folded) == 0
    assert_same(net, folded, images(4).double())


def test_one_module_under_two_names_is_replaced_under_both() -> None:
    net = Net(lambda m, x: m.b(m.a(x)), a=conv(), b=bn()).double()
    net.also = net.b
    folded = fold_batch_norm(net, images=images(2).double())
    assert isinstance(folded.also, nn.Identity)
    assert_same(net, folded, images(4).double())


def test_tied_weights_are_untied() -> None:
    net = Net(lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 3), b=bn(3), c=conv(3, 3)).double()
    net.c.weight = net.a.weight
    assert_same(net, fold_batch_norm(net, images=images(2).double()), images(4).double())


BLOCKS = st.sampled_from(["residual", "depthwise", "pre", "plain", "grouped", "pool"])


@settings(max_examples=25)
@given(st.lists(BLOCKS, min_size=1, max_size=5), st.booleans(), st.integers(0, 1000))
def test_random_networks_keep_their_outputs(blocks: list[str], bias: bool, seed: int) -> None:
    made: dict[str, Callable[[], nn.Module]] = {
        "residual": lambda: Residual(4, bias=bias),
        "depthwise": lambda: Residual(4, groups=4, bias=bias),
        "grouped": lambda: Residual(4, groups=2, bias=bias),
        "pre": lambda: PreActivation(4, 4),
        "plain": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4), nn.ReLU()),
        "pool": lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(4)),
    }
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), *(made[block]() for block in blocks), *head).double()
    randomise(net, seed)
    # The stem has no norm of its own, so a leading `pre` or `pool` keeps one that folds into the stem or nowhere.
    folded = fold_batch_norm(net, images=images(2, 8).double())
    assert norms(folded) <= sum(block in {"pre", "pool"} for block in blocks)
    assert_same(net, folded, images(3, 8).double())


def test_explicit_pairs() -> None:
    net = network().double()
    folded = fold_batch_norm(net, pairs=[("0", "1")])
    assert norms(folded) == norms(net) - 1
    assert_same(net, folded, images(4).double())


@pytest.mark.parametrize(
    ("pairs", "part"),
    [
        ([("3.convv1", "3.bn1")], "did you mean '3.conv1'"),
        ([("2", "1")], "cannot be folded"),
        ([("8", "1")], "cannot be folded"),
        (None, "either images"),
    ],
)
def test_invalid_pairs_are_refused(pairs: list[tuple[str, str]] | None, part: str) -> None:
    with pytest.raises(SchemeError, match=part):
        fold_batch_norm(network(), pairs=pairs)


def test_a_norm_without_running_statistics_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(SchemeError, match="after '0' keeps no running statistics"):
        fold_batch_norm(net, images=images(2))


def test_hooks_are_removed_after_an_error() -> None:
    net = network()
    with pytest.raises(RuntimeError):
        observe_data_flow(net, torch.zeros(2, 5, 8, 8))
    assert all(not child._forward_hooks and not child._forward_pre_hooks for child in net.modules())


def test_reused_addresses_of_tensors() -> None:
    """The input of a norm may be freed at once and the output of the next layer get its address."""
    cells = [
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(12)
    ]
    net = nn.Sequential(*cells)
    expected = tuple((f"{i}.3", f"{i}.4") for i in range(12))
    assert all(observe_data_flow(net, images(2)).norm_pairs == expected for _ in range(5))
