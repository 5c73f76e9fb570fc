"""Quick gradients of depthwise convolutions are the gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ghnq.training.networks.depthwise import _FastDepthwise, _in_nchw, with_fast_depthwise


def gradients(layer: nn.Conv2d, x: Tensor, seed: int) -> list[Tensor]:
    """Output, and the gradients of image and parameters."""
    x = x.clone().requires_grad_()
    y = layer(x)
    torch.manual_seed(seed)
    found = torch.autograd.grad((y * torch.randn(y.shape, dtype=y.dtype)).sum(), [x, *layer.parameters()])
    return [y.detach(), *found]


@settings(max_examples=120)
@given(
    kernel=st.tuples(st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 3, 4, 5, 7, 9])),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 3]),
    padding=st.none() | st.integers(0, 4),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    channels=st.integers(2, 20),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_pytorch(
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    padding: int | None,
    size: tuple[int, int],
    channels: int,
    bias: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    pad = tuple(k // 2 * dilation if padding is None else padding for k in kernel)
    if any(s + 2 * p < dilation * (k - 1) + 1 for s, p, k in zip(size, pad, kernel, strict=True)):
        return  # nothing to convolve
    layer = nn.Conv2d(channels, channels, kernel, stride, pad, dilation, channels, bias=bias, dtype=torch.float64)
    images = torch.randn(3, channels, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    expected = gradients(layer, images, seed)

    found = gradients(with_fast_depthwise(copy.deepcopy(layer)), images, seed)

    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("layer", "quick"),
    [
        (nn.Conv2d(8, 8, 5, padding=2, groups=8), True),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), True),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), True),
        (nn.Conv2d(8, 8, (7, 1), padding=(3, 0), groups=8), True),
        (nn.Conv2d(8, 8, 5, padding=2), False),
        (nn.Conv2d(8, 16, 5, padding=2, groups=8), False),
        (nn.Conv2d(8, 8, 5, padding=2, groups=4), False),
        (nn.Conv2d(8, 8, 5, padding="same", groups=8), False),
        (nn.Conv2d(8, 8, 5, padding=2, padding_mode="reflect", groups=8), False),
    ],
)
def test_which_layers(layer: nn.Conv2d, quick: bool) -> None:
    with_fast_depthwise(nn.Sequential(layer))

    assert isinstance(layer._conv_forward, _FastDepthwise) == quick


def test_the_result_stays_channels_last() -> None:
    layer = with_fast_depthwise(nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8))

    y = layer(torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last))

    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), ((7, 1), (3, 0))])
def test_narrow_ones_are_left_to_pytorch_on_the_cpu(
    kernel: int | tuple[int, int], padding: int | tuple[int, int]
) -> None:
    layer = nn.Conv2d(8, 8, kernel, padding=padding, groups=8)
    x = torch.randn(2, 8, 9, 9)

    y = with_fast_depthwise(copy.deepcopy(layer))(x)

    assert torch.equal(y, layer(x))
    assert type(y.grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize("size", [1, 6])
def test_what_a_gpu_gets_has_the_strides_of_nchw(size: int) -> None:
    """Also where sizes of 1 leave the layout open."""
    x = torch.randn(2, 8, size, size).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(8, 1, 3, 3).contiguous(memory_format=torch.channels_last)

    images, kernel = _in_nchw(x, weight)

    assert images.stride() == (8 * size * size, size * size, size, 1)
    assert kernel.stride() == (9, 9, 3, 1)
    assert torch.equal(images, x)
    assert torch.equal(kernel, weight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (7, 2)])
def test_a_gpu_gives_what_the_cpu_gives(kernel: int, dilation: int) -> None:
    layer = nn.Conv2d(8, 8, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=8)
    x = torch.randn(2, 8, 9, 9).contiguous(memory_format=torch.channels_last)
    layer, x = layer.double(), x.double()
    upstream = torch.randn(2, 8, 9, 9, dtype=torch.float64)

    def run(layer: nn.Module, device: str) -> list[Tensor]:
        images = x.to(device).requires_grad_()
        y = layer.to(device)(images)
        assert y.is_contiguous(memory_format=torch.channels_last)
        return [y, *torch.autograd.grad(y, [images, *layer.parameters()], upstream.to(device))]

    expected = run(layer, "cpu")
    found = run(with_fast_depthwise(copy.deepcopy(layer)), "cuda")

    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-10, atol=1e-10)
