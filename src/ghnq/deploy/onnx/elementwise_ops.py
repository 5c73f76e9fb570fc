"""Arithmetic and activations in ONNX."""

from __future__ import annotations

import math

import numpy as np
from torch import fx

from ghnq.deploy.graph.supported_ops import aten
from ghnq.deploy.onnx.model_builder import ModelBuilder
from ghnq.deploy.onnx.node_reader import NodeReader
from ghnq.deploy.onnx.onnx_op import OnnxOp, tensor_op
from ghnq.errors import ExportError


def _write_clamp(model: ModelBuilder, node: fx.Node, x: fx.Node, low: float | None, high: float | None) -> str:
    limits = [
        "" if limit is None else model.constant(f"{node.name}_{end}", np.array(limit, dtype=np.float32))
        for end, limit in (("low", low), ("high", high))
    ]
    return model.add_node("Clip", [model.input_name(x), *limits], node)


def _read_clamp(node: NodeReader) -> fx.Node:
    low, high = (None if node.optional_input(i) is None else node.number(i) for i in (1, 2))
    return node.call(aten.clamp.default, node.input(0), low, high)


def _write_leaky_relu(model: ModelBuilder, node: fx.Node, x: fx.Node, slope: float) -> str:
    return model.add_node("LeakyRelu", [model.input_name(x)], node, alpha=float(slope))


def _read_leaky_relu(node: NodeReader) -> fx.Node:
    return node.call(aten.leaky_relu.default, node.input(0), node.float_attribute("alpha"))


def _write_elu(model: ModelBuilder, node: fx.Node, x: fx.Node, alpha: float, scale: float, input_scale: float) -> str:
    if (scale, input_scale) != (1, 1):
        raise ExportError(f"{node.meta['where']}: SELU and CELU cannot be expressed; use ELU")
    return model.add_node("Elu", [model.input_name(x)], node, alpha=float(alpha))


def _read_elu(node: NodeReader) -> fx.Node:
    return node.call(aten.elu.default, node.input(0), node.float_attribute("alpha"), 1, 1)


def _write_gelu(model: ModelBuilder, node: fx.Node, x: fx.Node) -> str:
    """Writes x * (1 + erf(x / sqrt 2)) / 2: the operator Gelu is younger than the opset."""
    source = model.input_name(x)
    half, one, root = (
        model.constant(f"number_{name}", np.array(value, dtype=np.float32))
        for name, value in (("half", 0.5), ("one", 1.0), ("root_half", math.sqrt(0.5)))
    )
    erf = model.add_node("Erf", [model.add_node("Mul", [source, root], node)], node)
    factor = model.add_node("Mul", [model.add_node("Add", [erf, one], node), half], node)
    return model.add_node("Mul", [source, factor], node)


def _write_softmax(model: ModelBuilder, node: fx.Node, x: fx.Node, dim: int) -> str:
    return model.add_node("Softmax", [model.input_name(x)], node, axis=dim)


def _read_softmax(node: NodeReader) -> fx.Node:
    return node.call(aten.softmax.int, node.input(0), node.integer_attribute("axis"))


def _write_hard_sigmoid(model: ModelBuilder, node: fx.Node, x: fx.Node) -> str:
    return model.add_node("HardSigmoid", [model.input_name(x)], node, alpha=1 / 6, beta=0.5)


def _read_hard_sigmoid(node: NodeReader) -> fx.Node:
    return node.call(aten.hardsigmoid.default, node.input(0))


ELEMENTWISE_OPS = (
    tensor_op(aten.add.Tensor, "Add"),
    tensor_op(aten.mul.Tensor, "Mul"),
    tensor_op(aten.sub.Tensor, "Sub"),
    tensor_op(aten.div.Tensor, "Div"),
    tensor_op(aten.matmul.default, "MatMul"),
    tensor_op(aten.relu.default, "Relu"),
    tensor_op(aten.sigmoid.default, "Sigmoid"),
    tensor_op(aten.tanh.default, "Tanh"),
    tensor_op(aten.hardswish.default, "HardSwish"),
    tensor_op(aten.erf.default, "Erf"),
    OnnxOp(target=aten.clamp.default, name="Clip", write=_write_clamp, read=_read_clamp),
    OnnxOp(target=aten.leaky_relu.default, name="LeakyRelu", write=_write_leaky_relu, read=_read_leaky_relu),
    OnnxOp(target=aten.elu.default, name="Elu", write=_write_elu, read=_read_elu),
    # Read back as the operators it is written as.
    OnnxOp(target=aten.gelu.default, name="Erf", write=_write_gelu, read=None),
    OnnxOp(target=aten.softmax.int, name="Softmax", write=_write_softmax, read=_read_softmax),
    OnnxOp(target=aten.hardsigmoid.default, name="HardSigmoid", write=_write_hard_sigmoid, read=_read_hard_sigmoid),
)
