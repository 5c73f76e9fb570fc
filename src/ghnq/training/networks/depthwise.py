"""Faster depthwise convolutions, forward and backward, where oneDNN or cuDNN are slow.

oneDNN is slow, measured on AVX2 for 32 images of 96 channels of 8 x 8, at the gradient of a depthwise weight wider than
3 (5 x 5: 1.9 ms, 5 x 3: 0.2 ms), and at dilated depthwise convolutions, forward and backward (3 x 3: 3.9 ms, undilated:
0.2 ms). So the gradient of a wide weight is computed in strips of three columns, and a dilated convolution as an
undilated one of the images that consist of every second row and column: the same sums, in another order.

cuDNN is slow, measured on an H200, at the first call for every shape of a depthwise convolution in channels last:
240 ms forward and 217 ms backward (other convolutions 3 ms each; docs/results/training.md, "On a GPU"), and
architectures of a space have new shapes all the time. In NCHW, PyTorch uses its own kernels, which are not compiled for
each shape.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ghnq.torch_compat import replace_convolution

Pair = tuple[int, int]
STRIP = 3
"""The widest kernel whose weight gradient oneDNN computes quickly."""


def with_fast_depthwise(module: nn.Module) -> nn.Module:
    """Replaces the forward of the module's depthwise convolutions by a faster one where there is one.

    Values change by rounding only; under autocast nothing changes on the CPU.

    Returns:
        The module.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _is_depthwise(layer):
            replace_convolution(layer, _FastDepthwise(layer))
    return module


def _is_depthwise(layer: nn.Conv2d) -> bool:
    known = layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)
    return known and layer.groups == layer.in_channels == layer.out_channels > 1


class _FastDepthwise:
    """The function that replaces a layer's own `_conv_forward`."""

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
            if self.dilation != (1, 1) and self._splits_evenly(x, weight):
                return _biased(self._dilated(x, weight), bias)
        if x.is_cuda:
            return self._plain(*_in_nchw(x, weight), bias).contiguous(memory_format=torch.channels_last)
        return self._plain(x, weight, bias)

    def _plain(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _splits_evenly(self, x: Tensor, weight: Tensor) -> bool:
        """Returns whether rows and columns split into `dilation` independent images of equal size and whole padding."""
        return all(
            size % d == 0 and 2 * p == d * (k - 1) and k % 2 == 1 and s in (1, d)
            for size, k, s, p, d in zip(
                x.shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )

    def _dilated(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolves the images of all rows and columns with equal remainder, undilated, and interleaves the results.

        A stride equal to the dilation keeps only the remainder 0. [B, C, H, W] -> [B, C, H / stride, W / stride].
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
    """Copies in NCHW: a weight with one in-channel may have the strides of either layout, so that cuDNN is used."""
    return x.clone(memory_format=torch.contiguous_format), weight.clone(memory_format=torch.contiguous_format)


def depthwise(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Returns the depthwise convolution of x [B, C, H, W] with a weight [C, 1, kh, kw]; differentiable once."""
    if weight.shape[3] <= STRIP:
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))
    return torch.as_tensor(_Wide.apply(x, weight, stride, padding))  # type: ignore[no-untyped-call]


class _Wide(torch.autograd.Function):
    """A weight wider than STRIP, whose gradient is computed in strips."""

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
    """Returns [C, 1, kh, kw]; each strip is the gradient of a narrow weight on the image from its column on."""
    width, (ph, pw) = weight.shape[3], padding
    wide = F.pad(x.permute(0, 2, 3, 1), (0, 0, pw, pw, ph, ph))  # [B, H, W, C], copied in the order of memory
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
