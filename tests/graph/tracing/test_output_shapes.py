"""The shape rules against PyTorch's own kernels: the same shape, or a failure where PyTorch fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.graph.tracing import output_shapes as shapes

FAILED = "failed"


def empty(shape: Any, device: str = "meta") -> torch.Tensor:
    return torch.zeros(tuple(shape), device=device)


def outcome(function: Callable[[], Any]) -> Any:
    """The shape that comes out, or that it failed."""
    try:
        result = function()
    except (RuntimeError, ValueError, IndexError):
        return FAILED
    shape = tuple(result.shape) if isinstance(result, torch.Tensor) else result
    return shape if 0 not in shape else FAILED  # an activation without elements is no architecture


def agree(ours: Callable[[], Any], real: Callable[[], torch.Tensor]) -> None:
    assert outcome(ours) == outcome(real)


small = st.integers(1, 4)
sizes = st.integers(1, 12)


def per_axis(n: int, values: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    """One number for all axes, or one for each."""
    return values | st.tuples(*[values] * n)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=200)
@given(st.data(), st.sampled_from((1, 2)))
def test_conv(data: st.DataObject, n: int) -> None:
    draw = data.draw
    groups = draw(st.integers(1, 3))
    weight = (groups * draw(small), draw(small), *draw(st.tuples(*[st.integers(1, 5)] * n)))
    batch = draw(st.sampled_from(((2,), ())))
    wrong = draw(st.sampled_from((0, 0, 0, 0, 1)))
    x = (*batch, weight[1] * groups + wrong, *draw(st.tuples(*[sizes] * n)))
    stride, dilation = draw(per_axis(n, st.integers(1, 3))), draw(per_axis(n, st.integers(1, 3)))
    padding = draw(per_axis(n, st.integers(0, 3)) | st.sampled_from(("same", "valid")))
    function = F.conv1d if n == 1 else F.conv2d
    agree(
        lambda: shapes.conv(x, weight, stride, padding, dilation, groups),
        lambda: function(empty(x), empty(weight), None, stride, padding, dilation, groups),
    )


@settings(max_examples=100)
@given(st.data(), st.sampled_from((1, 2)))
def test_conv_transpose(data: st.DataObject, n: int) -> None:
    draw = data.draw
    groups = draw(st.integers(1, 3))
    weight = (groups * draw(small), draw(small), *draw(st.tuples(*[st.integers(1, 5)] * n)))
    wrong = draw(st.sampled_from((0, 0, 0, 0, 1)))
    x = (2, weight[0] + wrong, *draw(st.tuples(*[sizes] * n)))
    stride, dilation = draw(per_axis(n, st.integers(1, 3))), draw(per_axis(n, st.integers(1, 3)))
    padding, extra = draw(per_axis(n, st.integers(0, 2))), draw(per_axis(n, st.integers(0, 2)))
    function = F.conv_transpose1d if n == 1 else F.conv_transpose2d
    agree(
        lambda: shapes.conv_transpose(x, weight, stride, padding, extra, groups, dilation),
        # on meta, PyTorch does not check the output padding
        lambda: function(empty(x, "cpu"), empty(weight, "cpu"), None, stride, padding, extra, groups, dilation),
    )


@settings(max_examples=100)
@given(st.data(), st.booleans())
def test_pool(data: st.DataObject, ceil_mode: bool) -> None:
    draw = data.draw
    x = (2, 3, draw(sizes), draw(sizes))
    kernel = draw(per_axis(2, st.integers(1, 5)))
    stride = draw(st.none() | per_axis(2, st.integers(1, 4)))
    padding, dilation = draw(per_axis(2, st.integers(0, 2))), draw(per_axis(2, st.integers(1, 2)))
    agree(
        lambda: shapes.pool(x, 2, kernel, stride, padding, dilation, ceil_mode),
        lambda: F.max_pool2d(empty(x), kernel, stride, padding, dilation, ceil_mode),
    )
    agree(
        lambda: shapes.pool(x, 2, kernel, stride, padding, 1, ceil_mode),
        lambda: F.avg_pool2d(empty(x), kernel, stride, padding, ceil_mode),
    )


@settings(max_examples=100)
@given(sizes, st.integers(1, 5), st.none() | st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_pool_1d(size: int, kernel: int, stride: int | None, padding: int, ceil_mode: bool) -> None:
    x = (2, 3, size)
    agree(
        lambda: shapes.pool(x, 1, kernel, stride, padding, 1, ceil_mode),
        lambda: F.avg_pool1d(empty(x), kernel, stride, padding, ceil_mode),
    )


@settings(max_examples=60)
@given(sizes, sizes, st.integers(1, 4) | st.tuples(st.none() | st.integers(1, 4), st.none() | st.integers(1, 4)))
def test_adaptive_pool(height: int, width: int, size: Any) -> None:
    x = (2, 3, height, width)
    agree(lambda: shapes.adaptive_pool(x, 2, size), lambda: F.adaptive_avg_pool2d(empty(x), size))


@settings(max_examples=60)
@given(st.lists(small, max_size=3), small, small, small)
def test_linear(lead: list[int], features: int, into: int, out: int) -> None:
    x, weight = (*lead, features), (out, into)
    agree(lambda: shapes.linear(x, weight), lambda: F.linear(empty(x), empty(weight)))


shape = st.lists(st.sampled_from((1, 2, 3)), max_size=4).map(tuple)


@settings(max_examples=80)
@given(shape, shape)
def test_broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    agree(lambda: shapes.broadcast(a, b), lambda: empty(a) + empty(b))


@settings(max_examples=80)
@given(
    st.lists(st.lists(st.sampled_from((1, 2)), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3),
    st.integers(-3, 3),
)
def test_concat(parts: list[tuple[int, ...]], dim: int) -> None:
    agree(lambda: shapes.concat(parts, dim), lambda: torch.cat([empty(part) for part in parts], dim))


@settings(max_examples=80)
@given(shape, st.lists(st.integers(-4, 4), max_size=3), st.booleans())
def test_mean(x: tuple[int, ...], dims: list[int], keepdim: bool) -> None:
    agree(lambda: shapes.mean(x, dims, keepdim), lambda: empty(x).mean(dims, keepdim))


@pytest.mark.parametrize("value", [(1, 2, 3), ()])
def test_a_size_with_the_wrong_number_of_axes_is_refused(value: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected 2 numbers"):
        shapes.expand_size(value, 2, "stride")
