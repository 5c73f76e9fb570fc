"""The rules of `normal.py` for convolutions: all of them become `conv2d` with numbers for its padding."""

import torch.nn.functional as F
from torch import fx

from ghnq.deploy.graph.builder import Builder, full_args, pair, place_of
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError


def conv(b: Builder, node: fx.Node) -> fx.Node:
    """A convolution in two dimensions, padded by numbers."""
    x, weight, bias, stride, padding, dilation, groups = b.mapped(full_args(node))
    return b.call(aten.conv2d.default, x, weight, bias, pair(stride), pair(padding), pair(dilation), groups, like=node)


def padded_conv(b: Builder, node: fx.Node) -> fx.Node:
    """A convolution whose padding is a word, `valid` or `same`; as torch does, `same` puts an odd zero behind."""
    x, weight, bias, stride, word, dilation, groups = b.mapped(full_args(node))
    dilation = pair(dilation)
    sizes = weight.meta["val"].shape[2:] if word == "same" else (1, 1)
    whole = [step * (size - 1) for step, size in zip(dilation, sizes, strict=True)]
    if any(zeros % 2 for zeros in whole):
        (above, left), (below, right) = [n // 2 for n in whole], [n - n // 2 for n in whole]
        sides = [left, right, above, below]
        x = b.call(aten.constant_pad_nd.default, x, sides, 0.0, like=node, value=F.pad(x.meta["val"], sides))
        whole = [0, 0]
    padding = [zeros // 2 for zeros in whole]
    return b.call(aten.conv2d.default, x, weight, bias, pair(stride), padding, dilation, groups, like=node)


def other_conv(b: Builder, node: fx.Node) -> fx.Node:
    """Any other convolution, of which only one in two dimensions has a word."""
    *args, transposed, _, groups = full_args(node)
    x, weight, bias, *sizes = b.mapped(args)
    stride = sizes[0]
    if len(stride) == 2 and not transposed:
        return b.call(aten.conv2d.default, x, weight, bias, *(pair(size) for size in sizes), groups, like=node)
    kind = "transposed convolution" if transposed else f"{len(stride)}-D convolution"
    raise ExportError(f"{place_of(node)} is a {kind}; only 2-D convolutions (nn.Conv2d) can be exported")
