"""Layers in ONNX: convolutions, linear layers, norms and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from ghnq.deploy.graph.quantize_ops import dequantize
from ghnq.deploy.graph.supported_ops import aten, is_global_average
from ghnq.deploy.onnx.model_builder import ModelBuilder
from ghnq.deploy.onnx.node_reader import NodeReader
from ghnq.deploy.onnx.onnx_op import OnnxOp


def _layer_inputs(model: ModelBuilder, x: fx.Node, weight: fx.Node, bias: fx.Node | None) -> list[str]:
    """Returns the names of a layer's input, weight and bias.

    ONNX Runtime (1.32, not yet 1.19) quantizes the float weights of a layer that reads a quantized tensor and whose
    result is quantized (`WeightBiasQuantization`). A scheme that leaves a layer in float means float, so a clip that
    changes no value is put between such a layer and its input.
    """
    names = [model.input_name(arg) for arg in (x, weight, bias) if arg is not None]
    if x.target is dequantize and weight.target is not dequantize:
        largest = np.finfo(np.float32).max
        limits = [model.constant("lowest", -largest), model.constant("largest", largest)]
        names[0] = model.add_node("Clip", [names[0], *limits], x)
    return names


def _write_conv(
    model: ModelBuilder,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> str:
    return model.add_node(
        "Conv",
        _layer_inputs(model, x, weight, bias),
        node,
        kernel_shape=model.kernel_shape(weight),
        strides=stride,
        pads=[*padding, *padding],
        dilations=dilation,
        group=groups,
    )


def _read_conv(node: NodeReader) -> fx.Node:
    return node.call(
        aten.conv2d.default,
        node.input(0),
        node.input(1),
        node.optional_input(2),
        node.integers_attribute("strides"),
        node.integers_attribute("pads")[:2],
        node.integers_attribute("dilations"),
        node.integer_attribute("group"),
    )


def _write_linear(model: ModelBuilder, node: fx.Node, x: fx.Node, weight: fx.Node, bias: fx.Node | None) -> str:
    return model.add_node("Gemm", _layer_inputs(model, x, weight, bias), node, alpha=1.0, beta=1.0, transB=1)


def _read_linear(node: NodeReader) -> fx.Node:
    return node.call(aten.linear.default, node.input(0), node.input(1), node.optional_input(2))


def _write_batch_norm(
    model: ModelBuilder,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node | None,
    bias: fx.Node | None,
    mean: fx.Node,
    variance: fx.Node,
    training: bool,
    momentum: float,
    epsilon: float,
    cudnn_enabled: bool,
) -> str:
    channels = len(model.tensor(mean))
    scale = model.input_name(weight) or model.constant(f"ones_{channels}", np.ones(channels, dtype=np.float32))
    shift = model.input_name(bias) or model.constant(f"zeros_{channels}", np.zeros(channels, dtype=np.float32))
    inputs = [model.input_name(x), scale, shift, model.input_name(mean), model.input_name(variance)]
    return model.add_node("BatchNormalization", inputs, node, epsilon=epsilon)


def _read_batch_norm(node: NodeReader) -> fx.Node:
    return node.call(aten.batch_norm.default, *node.inputs, False, 0.0, node.float_attribute("epsilon"), False)


def _write_layer_norm(
    model: ModelBuilder,
    node: fx.Node,
    x: fx.Node,
    shape: Sequence[int],
    weight: fx.Node | None,
    bias: fx.Node | None,
    epsilon: float,
) -> str:
    scale = model.input_name(weight) or model.constant(f"{node.name}_ones", np.ones(shape, dtype=np.float32))
    inputs = [model.input_name(x), scale, *([] if bias is None else [model.input_name(bias)])]
    return model.add_node("LayerNormalization", inputs, node, axis=-len(shape), epsilon=epsilon)


def _read_layer_norm(node: NodeReader) -> fx.Node:
    shape = list(node.tensor(1).shape)
    epsilon = node.float_attribute("epsilon")
    return node.call(aten.layer_norm.default, node.input(0), shape, node.input(1), node.optional_input(2), epsilon)


def _write_avg_pool(
    model: ModelBuilder,
    node: fx.Node,
    x: fx.Node,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> str:
    return model.add_node(
        "AveragePool",
        [model.input_name(x)],
        node,
        kernel_shape=kernel_size,
        strides=stride,
        pads=[*padding, *padding],
        count_include_pad=int(count_include_pad),
    )


def _read_avg_pool(node: NodeReader) -> fx.Node:
    return node.call(
        aten.avg_pool2d.default,
        node.input(0),
        node.integers_attribute("kernel_shape"),
        node.integers_attribute("strides"),
        node.integers_attribute("pads")[:2],
        False,
        bool(node.integer_attribute("count_include_pad")),
    )


def _write_max_pool(
    model: ModelBuilder,
    node: fx.Node,
    x: fx.Node,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> str:
    return model.add_node(
        "MaxPool",
        [model.input_name(x)],
        node,
        kernel_shape=kernel_size,
        strides=stride,
        pads=[*padding, *padding],
        dilations=dilation,
        ceil_mode=int(ceil_mode),
    )


def _read_max_pool(node: NodeReader) -> fx.Node:
    return node.call(
        aten.max_pool2d.default,
        node.input(0),
        node.integers_attribute("kernel_shape"),
        node.integers_attribute("strides"),
        node.integers_attribute("pads")[:2],
        node.integers_attribute("dilations"),
        bool(node.integer_attribute("ceil_mode")),
    )


def _write_mean(model: ModelBuilder, node: fx.Node, x: fx.Node, dims: Sequence[int], keep: bool) -> str:
    if is_global_average(node):
        return model.add_node("GlobalAveragePool", [model.input_name(x)], node)
    return model.add_node("ReduceMean", [model.input_name(x)], node, axes=dims, keepdims=int(keep))


def _read_mean(node: NodeReader) -> fx.Node:
    axes, keep = node.integers_attribute("axes"), bool(node.integer_attribute("keepdims"))
    return node.call(aten.mean.dim, node.input(0), axes, keep)


def _read_global_average(node: NodeReader) -> fx.Node:
    return node.call(aten.mean.dim, node.input(0), [2, 3], True)


LAYER_OPS = (
    OnnxOp(target=aten.conv2d.default, name="Conv", write=_write_conv, read=_read_conv),
    OnnxOp(target=aten.linear.default, name="Gemm", write=_write_linear, read=_read_linear),
    OnnxOp(target=aten.batch_norm.default, name="BatchNormalization", write=_write_batch_norm, read=_read_batch_norm),
    OnnxOp(target=aten.layer_norm.default, name="LayerNormalization", write=_write_layer_norm, read=_read_layer_norm),
    OnnxOp(target=aten.avg_pool2d.default, name="AveragePool", write=_write_avg_pool, read=_read_avg_pool),
    OnnxOp(target=aten.max_pool2d.default, name="MaxPool", write=_write_max_pool, read=_read_max_pool),
    OnnxOp(target=aten.mean.dim, name="ReduceMean", write=_write_mean, read=_read_mean),
    OnnxOp(target=aten.mean.dim, name="GlobalAveragePool", write=None, read=_read_global_average),
)
