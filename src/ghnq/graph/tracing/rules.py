"""Rules for the common torch functions: the op of the node, the parameters that it owns, and the output shape.

A rule takes the recorder, the name of the function, and the arguments of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from ghnq.graph.elements import Shape, Shape4
from ghnq.graph.tracing import output_shapes as shapes
from ghnq.graph.tracing.call_record import PASS, CallRecord
from ghnq.graph.tracing.direct_parameters import shape4
from ghnq.graph.tracing.recorder import Recorder

OutputSize = int | Sequence[int | None]  # of adaptive pooling


def _layer(
    recorder: Recorder,
    name: str,
    input: Tensor,
    output_shape: Shape,
    kind: str,
    node_shape: Shape4,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """A layer with a weight and perhaps a bias."""
    weight_index, bias_index = recorder.parameter_index(weight), recorder.parameter_index(bias)
    if bias is not None and tuple(bias.shape) != node_shape[:1]:
        raise ValueError(f"{name} with {node_shape[0]} outputs got a bias of shape {tuple(bias.shape)}")
    if weight_index < 0:  # a constant filter is not a node, but a bias parameter after it is one
        kind, node_shape = ("bias", (node_shape[0], 1, 1, 1)) if bias_index >= 0 else (PASS, node_shape)
    inputs = (recorder.record_indices[id(input)],)
    return recorder.emit(kind, name, inputs, output_shape, input.dtype, node_shape, weight_index, bias_index)


def _conv_op(groups: int, dilation: shapes.Size) -> str:
    if groups == 1:
        return "conv"
    return "dil_conv" if (dilation if isinstance(dilation, int) else min(dilation)) > 1 else "sep_conv"


def conv(
    recorder: Recorder, name: str, /, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: shapes.Size = 1, padding: shapes.Size | str = 0, dilation: shapes.Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    kernel = tuple(weight.shape)
    out = shapes.conv(tuple(input.shape), kernel, stride, padding, dilation, groups)
    return _layer(recorder, name, input, out, _conv_op(groups, dilation), shape4(kernel), weight, bias)


def conv_transpose(
    recorder: Recorder, name: str, /, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: shapes.Size = 1, padding: shapes.Size = 0, output_padding: shapes.Size = 0, groups: int = 1,
    dilation: shapes.Size = 1,
) -> Tensor:  # fmt: skip
    kernel = tuple(weight.shape)
    out = shapes.conv_transpose(tuple(input.shape), kernel, stride, padding, output_padding, groups, dilation)
    node_shape = shape4((kernel[1] * groups, kernel[0] // groups, *kernel[2:]))
    return _layer(recorder, name, input, out, _conv_op(groups, dilation), node_shape, weight, bias)


def linear(recorder: Recorder, name: str, /, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    matrix = tuple(weight.shape)
    out = shapes.linear(tuple(input.shape), matrix)
    return _layer(recorder, name, input, out, "conv", shape4(matrix), weight, bias)


def _norm(
    recorder: Recorder, name: str, input: Tensor, kind: str, size: int, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """A normalisation whose weight and bias have `size` elements; without parameters it is not a node."""
    for tensor in (weight, bias):
        if tensor is not None and tensor.numel() != size:
            raise ValueError(f"{name} with {tensor.numel()} channels got the shape {tuple(input.shape)}")
    weight_index, bias_index = recorder.parameter_index(weight), recorder.parameter_index(bias)
    kind = kind if weight_index >= 0 or bias_index >= 0 else PASS
    inputs, shape = (recorder.record_indices[id(input)],), tuple(input.shape)
    return recorder.emit(kind, name, inputs, shape, input.dtype, (size, 1, 1, 1), weight_index, bias_index)


def batch_norm(
    recorder: Recorder, name: str, /, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, *rest: object, **options: object,
) -> Tensor:  # fmt: skip
    channels = input.shape[1]
    if running_mean is not None and running_mean.numel() != channels:
        raise ValueError(f"{name} with {running_mean.numel()} channels got the shape {tuple(input.shape)}")
    return _norm(recorder, name, input, "bn", channels, weight, bias)


def instance_norm(
    recorder: Recorder, name: str, /, input: Tensor,
    running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, *rest: object, **options: object,
) -> Tensor:  # fmt: skip
    return _norm(recorder, name, input, "ln", input.shape[1], weight, bias)


def group_norm(
    recorder: Recorder, name: str, /, input: Tensor, num_groups: int, weight: Tensor | None = None,
    bias: Tensor | None = None, *rest: object, **options: object,
) -> Tensor:  # fmt: skip
    if input.shape[1] % num_groups:
        raise ValueError(f"{name} with {num_groups} groups got the shape {tuple(input.shape)}")
    return _norm(recorder, name, input, "ln", input.shape[1], weight, bias)


def layer_norm(
    recorder: Recorder, name: str, /, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, *rest: object, **options: object,
) -> Tensor:  # fmt: skip
    last = tuple(normalized_shape)
    if tuple(input.shape[-len(last) :]) != last:
        raise ValueError(f"{name} over {last} got the shape {tuple(input.shape)}")
    return _norm(recorder, name, input, "ln", prod(last), weight, bias)


def _window(kernel: shapes.Size, n: int) -> Shape4:
    size = shapes.expand_size(kernel, n, "kernel_size")
    return (1, 1, size[0] if n == 2 else 1, size[-1])


def max_pool(
    recorder: Recorder, name: str, /, input: Tensor, kernel_size: shapes.Size, stride: shapes.Size | None = None,
    padding: shapes.Size = 0, dilation: shapes.Size = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    n = 1 if "1d" in name else 2
    out = shapes.pool(tuple(input.shape), n, kernel_size, stride, padding, dilation, ceil_mode)
    inputs = (recorder.record_indices[id(input)],)
    result = recorder.emit("max_pool", name, inputs, out, input.dtype, _window(kernel_size, n))
    if return_indices or "indices" in name:
        return result, recorder.emit(PASS, name, inputs, out, torch.int64)
    return result


def avg_pool(
    recorder: Recorder, name: str, /, input: Tensor, kernel_size: shapes.Size, stride: shapes.Size | None = None,
    padding: shapes.Size = 0, ceil_mode: bool = False, *rest: object, **options: object,
) -> Tensor:  # fmt: skip
    n = 1 if "1d" in name else 2
    out = shapes.pool(tuple(input.shape), n, kernel_size, stride, padding, 1, ceil_mode)
    return recorder.emit(
        "avg_pool", name, (recorder.record_indices[id(input)],), out, input.dtype, _window(kernel_size, n)
    )


def adaptive_avg_pool(recorder: Recorder, name: str, /, input: Tensor, output_size: OutputSize) -> Tensor:
    out = shapes.adaptive_pool(tuple(input.shape), 1 if "1d" in name else 2, output_size)
    return recorder.emit("glob_avg", name, (recorder.record_indices[id(input)],), out, input.dtype)


def adaptive_max_pool(
    recorder: Recorder, name: str, /, input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    n = 1 if "1d" in name else 2
    before = tuple(input.shape)
    out = shapes.adaptive_pool(before, n, output_size)
    window = [-(-size // max(count, 1)) for size, count in zip(before[-n:], out[-n:], strict=True)]
    inputs = (recorder.record_indices[id(input)],)
    result = recorder.emit("max_pool", name, inputs, out, input.dtype, _window(window, n))
    if return_indices or "indices" in name:
        return result, recorder.emit(PASS, name, inputs, out, torch.int64)
    return result


def mean(
    recorder: Recorder,
    name: str,
    /,
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    **options: object,
) -> Tensor:  # fmt: skip
    before = tuple(input.shape)
    dims = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    out = shapes.mean(before, dims, keepdim)
    spatial = len(before) == 4 and {d % 4 for d in dims} == {2, 3}
    return recorder.emit("glob_avg" if spatial else PASS, name, (recorder.record_indices[id(input)],), out, input.dtype)


def elementwise(recorder: Recorder, name: str, /, input: Tensor, *rest: object, **options: object) -> Tensor:
    found = recorder.record_indices[id(input)]
    if name.endswith("_"):
        recorder.records.append(CallRecord(PASS, name[:-1], (found,), tuple(input.shape)))
        recorder.overwrite(input, len(recorder.records) - 1)
        return input
    return recorder.emit(PASS, name, (found,), tuple(input.shape), input.dtype)


def prelu(recorder: Recorder, name: str, /, input: Tensor, weight: Tensor) -> Tensor:
    """A rule because PyTorch's meta kernel of `prelu` is slow to load."""
    slopes, channels = weight.numel(), input.shape[1] if input.dim() > 1 else 1
    if slopes not in (1, channels):
        raise ValueError(f"{name} with {slopes} slopes got the shape {tuple(input.shape)}")
    found = (recorder.record_indices[id(input)], recorder.find_record(weight))
    inputs = recorder.add_parameter_nodes(name, tuple(i for i in found if i is not None), tuple(input.shape))
    return recorder.emit(PASS, name, inputs, tuple(input.shape), input.dtype)


def pad(
    recorder: Recorder, name: str, /, input: Tensor, pad: Sequence[int], *rest: object, **options: object
) -> Tensor:
    """Constant padding by arithmetic; `pad` counts from the last dimension."""
    sizes = list(input.shape)
    if len(pad) % 2 or len(pad) > 2 * len(sizes):
        raise ValueError(f"pad is {tuple(pad)}, which does not fit the shape {tuple(sizes)}")
    for i in range(len(pad) // 2):
        sizes[-1 - i] += pad[2 * i] + pad[2 * i + 1]
    if min(sizes) < 1:
        raise ValueError(f"padding by {tuple(pad)} leaves no elements of the shape {tuple(input.shape)}")
    return recorder.emit(PASS, name, (recorder.record_indices[id(input)],), tuple(sizes), input.dtype)


def to(recorder: Recorder, name: str, /, input: Tensor, *rest: object, **options: object) -> Tensor:
    """A change of type or device: only the type is followed, as the tensor has no data."""
    dtype = {"float": torch.float32, "half": torch.float16, "double": torch.float64, "bfloat16": torch.bfloat16}.get(
        name, input.dtype
    )
    for value in (*rest, *options.values()):
        if isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, Tensor):
            dtype = value.dtype
    return recorder.emit(PASS, name, (recorder.record_indices[id(input)],), tuple(input.shape), dtype)


def with_swapped_statistics(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns the rule for `torch.batch_norm`, which takes weight and bias before the statistics, not after them."""

    def call(
        recorder: Recorder, name: str, /, input: Tensor, weight: Tensor | None, bias: Tensor | None,
        mean: Tensor | None, var: Tensor | None, *rest: object, **options: object,
    ) -> Tensor:  # fmt: skip
        return rule(recorder, name, input, mean, var, weight, bias)

    return call
