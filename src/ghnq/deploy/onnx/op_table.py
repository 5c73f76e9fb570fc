"""Each word of `ops.py` in ONNX: how it is written, and how an ONNX node is read back.

Both directions stand side by side, so that a word cannot be written and not be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx

from ghnq.deploy.graph.quantize_ops import dequantize
from ghnq.deploy.graph.supported_ops import aten, is_global_average
from ghnq.errors import ExportError

if TYPE_CHECKING:
    from ghnq.deploy.onnx.reader import Reader
    from ghnq.deploy.onnx.writer import Writer

Write = Callable[["Writer", Any], str]
Read = Callable[["Reader", list[Any], dict[str, Any]], fx.Node]

WRITERS: dict[Any, Write] = {}
READERS: dict[str, Read] = {}


def _word(target: Any, op: str) -> Callable[[tuple[Write, Read]], None]:
    def register(pair: tuple[Write, Read]) -> None:
        WRITERS[target], READERS[op] = pair

    return register


def _plain(target: Any, op: str, inputs: int) -> None:
    """A word whose arguments are all tensors, the same in both."""
    WRITERS[target] = lambda w, n: w.emit(op, [w.name(arg) for arg in n.args[:inputs]], n)
    READERS[op] = lambda r, x, a: r.call(target, *x)


for _target, _op, _inputs in (
    (aten.add.Tensor, "Add", 2), (aten.mul.Tensor, "Mul", 2), (aten.sub.Tensor, "Sub", 2), (aten.div.Tensor, "Div", 2),
    (aten.matmul.default, "MatMul", 2), (aten.relu.default, "Relu", 1), (aten.sigmoid.default, "Sigmoid", 1),
    (aten.tanh.default, "Tanh", 1), (aten.hardswish.default, "HardSwish", 1),
):  # fmt: skip
    _plain(_target, _op, _inputs)


def _inputs_of_layer(w: Writer, n: Any) -> list[str]:
    """Names of a layer's input, weight and bias.

    ONNX Runtime (1.32, not yet 1.19) quantizes the float weights of a layer that reads a grid and whose result goes to
    another (`WeightBiasQuantization`). A scheme that leaves a layer in float means float, so a clip that cuts nothing
    off stands between such a layer and its grid.
    """
    x, weight, *bias = n.args[:3]
    names = [w.name(arg) for arg in (x, weight, *bias) if arg is not None]
    if x.target is dequantize and weight.target is not dequantize:
        largest = np.finfo(np.float32).max
        ends = [w.initializer("lowest", -largest), w.initializer("largest", largest)]
        names[0] = w.emit("Clip", [names[0], *ends], x)
    return names


def _write_conv(w: Writer, n: Any) -> str:
    _, weight, _, stride, padding, dilation, groups = n.args
    inputs = _inputs_of_layer(w, n)
    return w.emit(
        "Conv", inputs, n, kernel_shape=w.kernel(weight), strides=stride, pads=_pads(padding), dilations=dilation,
        group=groups,
    )  # fmt: skip


def _read_conv(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    bias = x[2] if len(x) > 2 else None
    return r.call(aten.conv2d.default, *x[:2], bias, a["strides"], a["pads"][:2], a["dilations"], a["group"])


def _write_linear(w: Writer, n: Any) -> str:
    return w.emit("Gemm", _inputs_of_layer(w, n), n, alpha=1.0, beta=1.0, transB=1)


def _read_linear(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    return r.call(aten.linear.default, *x[:2], x[2] if len(x) > 2 else None)


def _write_avg_pool(w: Writer, n: Any) -> str:
    x, window, stride, padding, _, include = n.args
    return w.emit("AveragePool", [w.name(x)], n, kernel_shape=window, strides=stride, pads=_pads(padding),
                  count_include_pad=int(include))  # fmt: skip


def _read_avg_pool(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    include = bool(a["count_include_pad"])
    return r.call(aten.avg_pool2d.default, x[0], a["kernel_shape"], a["strides"], a["pads"][:2], False, include)


def _write_max_pool(w: Writer, n: Any) -> str:
    x, window, stride, padding, dilation, ceil = n.args
    return w.emit("MaxPool", [w.name(x)], n, kernel_shape=window, strides=stride, pads=_pads(padding),
                  dilations=dilation, ceil_mode=int(ceil))  # fmt: skip


def _read_max_pool(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    sizes = a["kernel_shape"], a["strides"], a["pads"][:2], a["dilations"]
    return r.call(aten.max_pool2d.default, x[0], *sizes, bool(a["ceil_mode"]))


def _write_mean(w: Writer, n: Any) -> str:
    x, dims, keep = n.args[:3]
    if is_global_average(n):
        return w.emit("GlobalAveragePool", [w.name(x)], n)
    return w.emit("ReduceMean", [w.name(x)], n, axes=dims, keepdims=int(keep))


def _write_reshape(w: Writer, n: Any) -> str:
    x, shape = n.args
    return w.emit("Reshape", [w.name(x), w.initializer(f"{n.name}_shape", np.array(shape, dtype=np.int64))], n)


def _write_slice(w: Writer, n: Any) -> str:
    x, *numbers = n.args
    names = ("dim", "start", "end", "step")
    dim, *ends = (
        w.initializer(f"{n.name}_{name}", np.array([number], dtype=np.int64))
        for name, number in zip(names, numbers, strict=True)
    )
    return w.emit("Slice", [w.name(x), ends[0], ends[1], dim, ends[2]], n)


def _read_slice(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    start, end, dim, step = (int(r.numbers(v)[0]) for v in x[1:])
    return r.call(aten.slice.Tensor, x[0], dim, start, end, step)


def _write_clamp(w: Writer, n: Any) -> str:
    x, *limits = n.args
    inputs = [
        "" if limit is None else w.initializer(f"{n.name}_{end}", np.array(limit, dtype=np.float32))
        for end, limit in zip(("low", "high"), limits, strict=True)
    ]
    return w.emit("Clip", [w.name(x), *inputs], n)


def _read_clamp(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    low, high = (None if v is None else r.number(v) for v in (*x[1:], None, None)[:2])
    return r.call(aten.clamp.default, x[0], low, high)


def _write_batch_norm(w: Writer, n: Any) -> str:
    x, weight, bias, mean, variance = n.args[:5]
    channels = len(w.tensor(mean))
    gain = w.name(weight) or w.initializer(f"ones_{channels}", np.ones(channels, dtype=np.float32))
    shift = w.name(bias) or w.initializer(f"zeros_{channels}", np.zeros(channels, dtype=np.float32))
    return w.emit("BatchNormalization", [w.name(x), gain, shift, w.name(mean), w.name(variance)], n, epsilon=n.args[7])


def _read_batch_norm(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    return r.call(aten.batch_norm.default, *x, False, 0.0, a["epsilon"], False)


def _write_layer_norm(w: Writer, n: Any) -> str:
    x, shape, weight, bias, epsilon = n.args
    gain = w.name(weight) or w.initializer(f"{n.name}_ones", np.ones(shape, dtype=np.float32))
    inputs = [w.name(x), gain, *([w.name(bias)] if bias is not None else [])]
    return w.emit("LayerNormalization", inputs, n, axis=-len(shape), epsilon=epsilon)


def _read_layer_norm(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    shape = list(r.tensor(x[1]).shape)
    return r.call(aten.layer_norm.default, x[0], shape, x[1], x[2] if len(x) > 2 else None, a["epsilon"])


def _write_elu(w: Writer, n: Any) -> str:
    x, alpha, scale, input_scale = n.args
    if (scale, input_scale) != (1, 1):
        raise ExportError(f"{n.meta['where']}: SELU and CELU cannot be expressed; use ELU")
    return w.emit("Elu", [w.name(x)], n, alpha=float(alpha))


def _write_gelu(w: Writer, n: Any) -> str:
    """x * (1 + erf(x / sqrt 2)) / 2: the op Gelu is younger than the opset."""
    x = w.name(n.args[0])
    half, one, root = (
        w.initializer(f"number_{name}", np.array(value, dtype=np.float32))
        for name, value in (("half", 0.5), ("one", 1.0), ("root_half", math.sqrt(0.5)))
    )
    bent = w.emit("Erf", [w.emit("Mul", [x, root], n)], n)
    share = w.emit("Mul", [w.emit("Add", [bent, one], n), half], n)
    return w.emit("Mul", [x, share], n)


def _write_pad(w: Writer, n: Any) -> str:
    x, pads, value = n.args
    rank = x.meta["val"].dim()
    before, after = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        before[-1 - i], after[-1 - i] = pads[2 * i], pads[2 * i + 1]
    sizes = w.initializer(f"{n.name}_pads", np.array(before + after, dtype=np.int64))
    return w.emit("Pad", [w.name(x), sizes, w.initializer(f"{n.name}_value", np.array(value, dtype=np.float32))], n)


def _read_pad(r: Reader, x: list[Any], a: dict[str, Any]) -> fx.Node:
    pads = r.numbers(x[1])
    before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    flat = [int(side) for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return r.call(aten.constant_pad_nd.default, x[0], flat, r.number(x[2]))


def _pads(padding: Any) -> list[int]:
    return [*padding, *padding]


_word(aten.conv2d.default, "Conv")((_write_conv, _read_conv))
_word(aten.linear.default, "Gemm")((_write_linear, _read_linear))
_word(aten.avg_pool2d.default, "AveragePool")((_write_avg_pool, _read_avg_pool))
_word(aten.max_pool2d.default, "MaxPool")((_write_max_pool, _read_max_pool))
_word(aten.mean.dim, "ReduceMean")(
    (_write_mean, lambda r, x, a: r.call(aten.mean.dim, x[0], a["axes"], bool(a["keepdims"])))
)
READERS["GlobalAveragePool"] = lambda r, x, a: r.call(aten.mean.dim, x[0], [2, 3], True)
_word(aten.reshape.default, "Reshape")(
    (_write_reshape, lambda r, x, a: r.call(aten.reshape.default, x[0], [int(v) for v in r.numbers(x[1])]))
)
_word(aten.permute.default, "Transpose")(
    (lambda w, n: w.emit("Transpose", [w.name(n.args[0])], n, perm=n.args[1]),
     lambda r, x, a: r.call(aten.permute.default, x[0], a["perm"]))
)  # fmt: skip
_word(aten.cat.default, "Concat")(
    (lambda w, n: w.emit("Concat", [w.name(x) for x in n.args[0]], n, axis=n.args[1]),
     lambda r, x, a: r.call(aten.cat.default, x, a["axis"]))
)  # fmt: skip
_word(aten.slice.Tensor, "Slice")((_write_slice, _read_slice))
_word(aten.clamp.default, "Clip")((_write_clamp, _read_clamp))
_word(aten.leaky_relu.default, "LeakyRelu")(
    (lambda w, n: w.emit("LeakyRelu", [w.name(n.args[0])], n, alpha=float(n.args[1])),
     lambda r, x, a: r.call(aten.leaky_relu.default, x[0], a["alpha"]))
)  # fmt: skip
_word(aten.batch_norm.default, "BatchNormalization")((_write_batch_norm, _read_batch_norm))
_word(aten.layer_norm.default, "LayerNormalization")((_write_layer_norm, _read_layer_norm))
_word(aten.softmax.int, "Softmax")(
    (lambda w, n: w.emit("Softmax", [w.name(n.args[0])], n, axis=n.args[1]),
     lambda r, x, a: r.call(aten.softmax.int, x[0], a["axis"]))
)  # fmt: skip
_word(aten.hardsigmoid.default, "HardSigmoid")(
    (lambda w, n: w.emit("HardSigmoid", [w.name(n.args[0])], n, alpha=1 / 6, beta=0.5),
     lambda r, x, a: r.call(aten.hardsigmoid.default, x[0]))
)  # fmt: skip
_word(aten.elu.default, "Elu")((_write_elu, lambda r, x, a: r.call(aten.elu.default, x[0], a["alpha"], 1, 1)))
_plain(aten.erf.default, "Erf", 1)
WRITERS[aten.gelu.default] = _write_gelu  # which is read back as what it was written with
_word(aten.constant_pad_nd.default, "Pad")((_write_pad, _read_pad))
