"""Depthwise convolutions that do not cost many times what they should, there and back.

What oneDNN is slow at, measured on AVX2 for 32 images of 96 channels of 8 x 8: the gradient of a depthwise weight wider
than 3 (5 x 5: 1.9 ms, a 5 x 3 one 0.2), and everything about dilated depthwise convolutions (3 x 3: 3.9 ms, undilated
0.2). So the gradient of a wide weight is put together from strips three wide, and a dilated convolution is an undilated
one of the images that every second row and column make: the same sums, in another order.

What cuDNN is slow at, measured on an H200: the first call of every shape of a depthwise convolution in channels-last
layout, 240 ms there and 217 ms back (other convolutions 3 ms each; docs/training.md, "On a GPU"). Architectures of a
space bring new shapes all the time. In NCHW PyTorch has kernels of its own, for which no shape is new.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Pair = tuple[int, int]
STRIP = 3
"""The widest kernel whose weight gradient oneDNN computes quickly."""


def with_quick_gradients(module: nn.Module) -> nn.Module:
    """Makes the module's depthwise convolutions take the quick way wherever there is one; returns the module.

    Values change by rounding only; under autocast nothing changes on the CPU.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _is_depthwise(layer):
            layer._conv_forward = _Quick(layer)  # type: ignore[method-assign,assignment]
    return module


def _is_depthwise(layer: nn.Conv2d) -> bool:
    known = layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)
    return known and layer.groups == layer.in_channels == layer.out_channels > 1


class _Quick:
    """What a layer does instead of its own `_conv_forward`."""

    def __init__(self, layer: nn.Conv2d) -> None:
        assert isinstance(layer.padding, tuple)
        self.stride, self.padding, self.dilation = (
            (pair[0], pair[1]) for pair in (layer.stride, layer.padding, layer.dilation)
        )
        self.groups = layer.groups

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            if self.dilation == (1, 1) and weight.shape[3] > STRIP:
                return _biased(depthwise(x, weight, self.stride, self.padding), bias)
            if self.dilation != (1, 1) and self._makes_images_of_every(x, weight):
                return _biased(self._dilated(x, weight), bias)
        if x.is_cuda:
            return self._plain(*_in_nchw(x, weight), bias).contiguous(memory_format=torch.channels_last)
        return self._plain(x, weight, bias)

    def _plain(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _makes_images_of_every(self, x: Tensor, weight: Tensor) -> bool:
        """Whether rows and columns fall apart into `dilation` sets that never meet, each padded by whole cells."""
        return all(
            size % d == 0 and 2 * p == d * (k - 1) and k % 2 == 1 and s in (1, d)
            for size, k, s, p, d in zip(
                x.shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )

    def _dilated(self, x: Tensor, weight: Tensor) -> Tensor:
        """[B, C, H, W] -> the images of all rows and columns of equal remainder -> undilated -> back in their places.

        A stride equal to the dilation keeps the remainder 0 alone.
        """
        (dh, dw), (sh, sw) = self.dilation, self.stride
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        rows, columns = (1 if sh == dh else dh), (1 if sw == dw else dw)
        x = x[:, :, :: dh // rows, :: dw // columns]
        b, c, h, w = x.shape
        cells = x.permute(0, 2, 3, 1).reshape(b, h // rows, rows, w // columns, columns, c)
        parts = cells.permute(2, 4, 0, 1, 3, 5).reshape(rows * columns * b, h // rows, w // columns, c)
        y = depthwise(parts.permute(0, 3, 1, 2), weight, (1, 1), padding).permute(0, 2, 3, 1)
        y = y.reshape(rows, columns, b, h // rows, w // columns, c).permute(2, 3, 0, 4, 1, 5)
        return y.reshape(b, h, w, c).permute(0, 3, 1, 2)


def _in_nchw(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Copies: a weight of one channel in may have the strides of either layout, and by them cuDNN would be chosen."""
    return x.clone(memory_format=torch.contiguous_format), weight.clone(memory_format=torch.contiguous_format)


def depthwise(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The depthwise convolution of x [B, C, H, W] with a weight [C, 1, kh, kw], of any width; differentiable once."""
    if weight.shape[3] <= STRIP:
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))
    return torch.as_tensor(_Wide.apply(x, weight, stride, padding))  # type: ignore[no-untyped-call]


class _Wide(torch.autograd.Function):
    """A weight wider than STRIP, whose gradient comes in strips."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _gradients(grad, x, weight, ctx.stride, ctx.padding, 0)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(grad, x, weight, ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """[C, 1, kh, kw]: each strip is the gradient of a narrow weight that sees the image from its own column on."""
    width, (ph, pw) = weight.shape[3], padding
    wide = F.pad(x.permute(0, 2, 3, 1), (0, 0, pw, pw, ph, ph))  # [B, H, W, C], which is copied in the order of memory
    seen = (grad.shape[3] - 1) * stride[1] + STRIP
    found = torch.empty_like(weight)
    for start in [*range(0, width - STRIP, STRIP), width - STRIP]:
        image = wide[:, :, start : start + seen].contiguous().permute(0, 3, 1, 2)
        narrow = weight[..., start : start + STRIP]
        found[..., start : start + STRIP] = _gradients(grad, image, narrow, stride, (0, 0), 1)
    return found


def _gradients(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, which: int) -> Tensor:
    """The gradient of the image (0) or of the weight (1)."""
    both = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), [which == 0, which == 1, False]
    )
    return torch.as_tensor(both[which])


def _biased(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias[:, None, None]
