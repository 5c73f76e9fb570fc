"""Layers in ONNX: convolutions, linear layers and norms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from ghnq.deploy.graph.quantize_ops import dequantize
from ghnq.deploy.graph.supported_ops import aten
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
        names[0] = model.in_float(names[0], x)
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


def _write_conv_transpose(
    model: ModelBuilder,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> str:
    return model.add_node(
        "ConvTranspose",
        _layer_inputs(model, x, weight, bias),
        node,
        kernel_shape=model.kernel_shape(weight),
        strides=stride,
        pads=[*padding, *padding],
        output_padding=output_padding,
        dilations=dilation,
        group=groups,
    )


def _read_conv_transpose(node: NodeReader) -> fx.Node:
    return node.call(
        aten.conv_transpose2d.input,
        node.input(0),
        node.input(1),
        node.optional_input(2),
        node.integers_attribute("strides"),
        node.integers_attribute("pads")[:2],
        node.integers_attribute("output_padding"),
        node.integer_attribute("group"),
        node.integers_attribute("dilations"),
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


def _write_instance_norm(
    model: ModelBuilder,
    node: fx.Node,
    x: fx.Node,
    weight: None,
    bias: None,
    mean: None,
    variance: None,
    use_input_statistics: bool,
    momentum: float,
    epsilon: float,
    cudnn_enabled: bool,
) -> str:
    channels = x.meta["val"].shape[1]
    scale = model.constant(f"ones_{channels}", np.ones(channels, dtype=np.float32))
    shift = model.constant(f"zeros_{channels}", np.zeros(channels, dtype=np.float32))
    return model.add_node("InstanceNormalization", [model.input_name(x), scale, shift], node, epsilon=epsilon)


def _read_instance_norm(node: NodeReader) -> fx.Node:
    if not bool((node.tensor(1) == 1).all()) or bool(node.tensor(2).any()):
        raise ValueError("an instance norm with scale or shift")
    epsilon = node.float_attribute("epsilon")
    return node.call(aten.instance_norm.default, node.input(0), *[None] * 4, True, 0.0, epsilon, False)


LAYER_OPS = (
    OnnxOp(target=aten.conv2d.default, name="Conv", write=_write_conv, read=_read_conv),
    OnnxOp(
        target=aten.conv_transpose2d.input, name="ConvTranspose", write=_write_conv_transpose, read=_read_conv_transpose
    ),
    OnnxOp(target=aten.linear.default, name="Gemm", write=_write_linear, read=_read_linear),
    OnnxOp(target=aten.batch_norm.default, name="BatchNormalization", write=_write_batch_norm, read=_read_batch_norm),
    OnnxOp(
        target=aten.instance_norm.default,
        name="InstanceNormalization",
        write=_write_instance_norm,
        read=_read_instance_norm,
    ),
    OnnxOp(target=aten.layer_norm.default, name="LayerNormalization", write=_write_layer_norm, read=_read_layer_norm),
)
