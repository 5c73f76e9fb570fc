"""Writing in place through views: what is read later depends on what was written, as in autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.graph import trace

SHAPE = (3, 8, 8)


class Net(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 1, bias=False)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.a(x), self.b(x))


def filled(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    out = x.new_zeros(2, 4, 8, 8)
    out[:, :2].copy_(a[:, :2])
    return out + b


def narrowed(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    out = torch.zeros(2, 8, 8, 8)
    out.narrow(1, 0, 4).copy_(a)
    out[:, 4:].add_(b)
    return out


def older_view(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    view = a[:, :2]
    a.add_(b)
    return torch.cat([view, view], 1)


def siblings(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    one, other = a.view(-1), a.view(-1)
    one.add_(b.view(-1))
    return other.view_as(a)


def item(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    rows = a.flatten(2)
    a[:, 1] = b[:, 0]
    return rows


@pytest.mark.parametrize("function", [filled, narrowed, older_view, siblings, item])
def test_both_parameters_are_used(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    module = Net(function)
    module(torch.rand(2, *SHAPE)).sum().backward()
    used = {name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}
    graph = trace(module, SHAPE)
    assert used == {"a.weight", "b.weight"} == {p.name for p in graph.parameters}
    assert graph.unused == ()


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a, b: (a[:, :2].relu_(), a + b)[1],
        lambda x, a, b: a.permute(0, 2, 3, 1).relu_() + b.permute(0, 2, 3, 1),
        lambda x, a, b: torch.relu_(a.view(-1)).view_as(a) + b,
        lambda x, a, b: a.unsqueeze(1).clamp_(0).squeeze(1) + b,
        lambda x, a, b: a.squeeze(0).sigmoid_() + b,
    ],
)
def test_elementwise_functions_in_place_on_views(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    graph = trace(Net(function), SHAPE)
    assert [node.op for node in graph.nodes] == ["input", "conv", "conv", "sum"]


def test_a_constant_mask_is_an_index_and_a_computed_one_is_refused() -> None:
    mask = torch.tensor([True, False, True, False])
    graph = trace(Net(lambda x, a, b: a[:, mask] + b[:, :2]), SHAPE)
    assert graph.nodes[-1].output_shape == (2, 8, 8)
    with pytest.raises(GraphError, match="selecting by a mask asks for the values"):
        trace(Net(lambda x, a, b: a[a > 0]), SHAPE)
