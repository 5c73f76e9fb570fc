"""Rules for the common torch functions: which node they are, which parameters it owns, and the shape that comes out.

A rule has the signature of the function it stands for, behind the recorder and the function's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ghnq.graph.tracing import output_shapes as shapes
from ghnq.graph.tracing.call_record import PASS, Record
from ghnq.graph.tracing.direct_parameters import Four, four
from ghnq.graph.tracing.recorder import Recorder


def _owner_or_pass(
    rec: Recorder, name: str, x: Tensor, out: tuple[int, ...], kind: str, node_shape: Four, weight: Any, bias: Any
) -> Tensor:
    w, b = rec.parameter(weight, name), rec.parameter(bias, name)
    if bias is not None and tuple(bias.shape) != node_shape[:1]:
        raise ValueError(f"{name} with {node_shape[0]} outputs got a bias of shape {tuple(bias.shape)}")
    if w < 0:  # a fixed filter is not a node; a learned bias behind it still is one
        kind, node_shape = ("bias", (node_shape[0], 1, 1, 1)) if b >= 0 else (PASS, node_shape)
    return rec.emit(kind, name, (rec.values[id(x)],), out, x.dtype, node_shape, w, b)


def conv(
    rec: Recorder, name: str, /, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: shapes.Size = 1,
    padding: shapes.Size | str = 0, dilation: shapes.Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    kernel = tuple(weight.shape)
    out = shapes.conv(tuple(input.shape), kernel, stride, padding, dilation, groups)
    kind = "conv"
    if groups > 1:
        kind = "dil_conv" if (dilation if isinstance(dilation, int) else min(dilation)) > 1 else "sep_conv"
    return _owner_or_pass(rec, name, input, out, kind, four(kernel), weight, bias)


def conv_transpose(
    rec: Recorder, name: str, /, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: shapes.Size = 1,
    padding: shapes.Size = 0, output_padding: shapes.Size = 0, groups: int = 1, dilation: shapes.Size = 1,
) -> Tensor:  # fmt: skip
    kernel = tuple(weight.shape)
    out = shapes.conv_transpose(tuple(input.shape), kernel, stride, padding, output_padding, groups, dilation)
    kind = "conv"
    if groups > 1:
        kind = "dil_conv" if (dilation if isinstance(dilation, int) else min(dilation)) > 1 else "sep_conv"
    node_shape = four((kernel[1] * groups, kernel[0] // groups, *kernel[2:]))
    return _owner_or_pass(rec, name, input, out, kind, node_shape, weight, bias)


def linear(rec: Recorder, name: str, /, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    matrix = tuple(weight.shape)
    return _owner_or_pass(
        rec, name, input, shapes.linear(tuple(input.shape), matrix), "conv", four(matrix), weight, bias
    )


def norm(
    rec: Recorder, name: str, input: Tensor, kind: str, size: int, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    for tensor in (weight, bias):
        if tensor is not None and tensor.numel() != size:
            raise ValueError(f"{name} with {tensor.numel()} channels got the shape {tuple(input.shape)}")
    w, b = rec.parameter(weight, name), rec.parameter(bias, name)
    kind = kind if w >= 0 or b >= 0 else PASS
    inputs = (rec.values[id(input)],)
    return rec.emit(kind, name, inputs, tuple(input.shape), input.dtype, (size, 1, 1, 1), w, b)


def batch_norm(
    rec: Recorder, name: str, /, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, *rest: Any, **options: Any,
) -> Tensor:  # fmt: skip
    channels = input.shape[1]
    if running_mean is not None and running_mean.numel() != channels:
        raise ValueError(f"{name} with {running_mean.numel()} channels got the shape {tuple(input.shape)}")
    return norm(rec, name, input, "bn", channels, weight, bias)


def instance_norm(
    rec: Recorder, name: str, /, input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, *rest: Any, **options: Any,
) -> Tensor:  # fmt: skip
    return norm(rec, name, input, "ln", input.shape[1], weight, bias)


def group_norm(
    rec: Recorder, name: str, /, input: Tensor, num_groups: int, weight: Tensor | None = None,
    bias: Tensor | None = None, *rest: Any, **options: Any,
) -> Tensor:  # fmt: skip
    if input.shape[1] % num_groups:
        raise ValueError(f"{name} with {num_groups} groups got the shape {tuple(input.shape)}")
    return norm(rec, name, input, "ln", input.shape[1], weight, bias)


def layer_norm(
    rec: Recorder, name: str, /, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, *rest: Any, **options: Any,
) -> Tensor:  # fmt: skip
    last = tuple(normalized_shape)
    if tuple(input.shape[-len(last) :]) != last:
        raise ValueError(f"{name} over {last} got the shape {tuple(input.shape)}")
    return norm(rec, name, input, "ln", prod(last), weight, bias)


def _window(kernel: shapes.Size, n: int) -> Four:
    size = shapes.spread(kernel, n, "kernel_size")
    return (1, 1, size[0] if n == 2 else 1, size[-1])


def max_pool(
    rec: Recorder, name: str, /, input: Tensor, kernel_size: shapes.Size, stride: shapes.Size | None = None,
    padding: shapes.Size = 0, dilation: shapes.Size = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    n = 1 if "1d" in name else 2
    out = shapes.pool(tuple(input.shape), n, kernel_size, stride, padding, dilation, ceil_mode)
    inputs = (rec.values[id(input)],)
    result = rec.emit("max_pool", name, inputs, out, input.dtype, _window(kernel_size, n))
    if return_indices or "indices" in name:
        return result, rec.emit(PASS, name, inputs, out, torch.int64)
    return result


def avg_pool(
    rec: Recorder, name: str, /, input: Tensor, kernel_size: shapes.Size, stride: shapes.Size | None = None,
    padding: shapes.Size = 0, ceil_mode: bool = False, *rest: Any, **options: Any,
) -> Tensor:  # fmt: skip
    n = 1 if "1d" in name else 2
    out = shapes.pool(tuple(input.shape), n, kernel_size, stride, padding, 1, ceil_mode)
    return rec.emit("avg_pool", name, (rec.values[id(input)],), out, input.dtype, _window(kernel_size, n))


def adaptive_avg_pool(rec: Recorder, name: str, /, input: Tensor, output_size: Any) -> Tensor:
    out = shapes.adaptive_pool(tuple(input.shape), 1 if "1d" in name else 2, output_size)
    return rec.emit("glob_avg", name, (rec.values[id(input)],), out, input.dtype)


def adaptive_max_pool(
    rec: Recorder, name: str, /, input: Tensor, output_size: Any, return_indices: bool = False
) -> Any:
    n = 1 if "1d" in name else 2
    before = tuple(input.shape)
    out = shapes.adaptive_pool(before, n, output_size)
    window = [-(-size // max(count, 1)) for size, count in zip(before[-n:], out[-n:], strict=True)]
    inputs = (rec.values[id(input)],)
    result = rec.emit("max_pool", name, inputs, out, input.dtype, _window(window, n))
    if return_indices or "indices" in name:
        return result, rec.emit(PASS, name, inputs, out, torch.int64)
    return result


def mean(rec: Recorder, name: str, /, input: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    before = tuple(input.shape)
    dims = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    out = shapes.mean(before, dims, keepdim)
    spatial = len(before) == 4 and {d % 4 for d in dims} == {2, 3}
    return rec.emit("glob_avg" if spatial else PASS, name, (rec.values[id(input)],), out, input.dtype)


def elementwise(rec: Recorder, name: str, /, input: Tensor, *rest: Any, **options: Any) -> Tensor:
    found = rec.values[id(input)]
    if name.endswith("_"):
        rec.records.append(Record(PASS, name[:-1], (found,), tuple(input.shape)))
        rec.overwrite(input, len(rec.records) - 1)
        return input
    return rec.emit(PASS, name, (found,), tuple(input.shape), input.dtype)


def prelu(rec: Recorder, name: str, /, input: Tensor, weight: Tensor) -> Tensor:
    """A rule only because PyTorch's meta kernel of it is slow to load."""
    slopes, channels = weight.numel(), input.shape[1] if input.dim() > 1 else 1
    if slopes not in (1, channels):
        raise ValueError(f"{name} with {slopes} slopes got the shape {tuple(input.shape)}")
    found = (rec.values[id(input)], rec.value(weight))
    inputs = rec.own(name, tuple(i for i in found if i is not None), tuple(input.shape))
    return rec.emit(PASS, name, inputs, tuple(input.shape), input.dtype)


def pad(rec: Recorder, name: str, /, input: Tensor, pad: Sequence[int], *rest: Any, **options: Any) -> Tensor:
    """Constant padding by arithmetic; `pad` counts from the last dimension."""
    sizes = list(input.shape)
    if len(pad) % 2 or len(pad) > 2 * len(sizes):
        raise ValueError(f"pad is {tuple(pad)}, which does not fit the shape {tuple(sizes)}")
    for i in range(len(pad) // 2):
        sizes[-1 - i] += pad[2 * i] + pad[2 * i + 1]
    if min(sizes) < 1:
        raise ValueError(f"padding by {tuple(pad)} leaves nothing of the shape {tuple(input.shape)}")
    return rec.emit(PASS, name, (rec.values[id(input)],), tuple(sizes), input.dtype)


def to(rec: Recorder, name: str, /, input: Tensor, *rest: Any, **options: Any) -> Tensor:
    """A change of type or device: the tensor stays without data, only the type is followed."""
    dtype = {"float": torch.float32, "half": torch.float16, "double": torch.float64, "bfloat16": torch.bfloat16}.get(
        name, input.dtype
    )
    for value in (*rest, *options.values()):
        if isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, Tensor):
            dtype = value.dtype
    return rec.emit(PASS, name, (rec.values[id(input)],), tuple(input.shape), dtype)


def swapped(rule: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.batch_norm` takes weight and bias before the statistics; `F.batch_norm` after them."""

    def call(
        rec: Recorder,
        name: str,
        /,
        input: Tensor,
        weight: Any,
        bias: Any,
        mean: Any,
        var: Any,
        *rest: Any,
        **options: Any,
    ) -> Any:
        return rule(rec, name, input, mean, var, weight, bias)

    return call
