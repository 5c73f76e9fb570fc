"""Quantize and dequantize in ONNX, and the types in which integers are stored.

Legend: O output channels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, fx

from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.saturation import SAFE_WEIGHT
from ghnq.deploy.onnx.model_builder import ModelBuilder
from ghnq.deploy.onnx.node_reader import NodeReader
from ghnq.deploy.onnx.onnx_op import OnnxOp
from ghnq.errors import SchemeError
from ghnq.optional_imports import import_optional


def _write_quantize(
    model: ModelBuilder, node: fx.Node, x: fx.Node, scale: fx.Node, zero_point: fx.Node, smallest: int, largest: int
) -> str:
    inputs = [model.input_name(x), model.input_name(scale), _activation_zero_point(model, zero_point)]
    out = model.add_node("QuantizeLinear", inputs, node)
    # uint8 ends at 255; fewer bits end earlier. A tensor that was just dequantized gets a clip as well, because ONNX
    # Runtime merges two neighbouring pairs of Q and DQ into one with other values.
    if largest != 255 or x.target is dequantize:
        limit = model.constant(f"largest_{largest}", np.array(largest, dtype=np.uint8))
        out = model.add_node("Clip", [out, "", limit], node)
    return out


def _write_dequantize(
    model: ModelBuilder, node: fx.Node, q: fx.Node, scale: fx.Node, zero_point: fx.Node, channels: int = 0
) -> str:
    if q.op != "get_attr":
        inputs = [model.names[q], model.input_name(scale), _activation_zero_point(model, zero_point)]
        return model.add_node("DequantizeLinear", inputs, node)
    name, integers, zeros = str(q.target), model.tensor(q), model.tensor(zero_point)
    axis = {"axis": channels} if model.tensor(scale).dim() else {}
    if integers.dtype == torch.int32:
        bias = model.constant(name, integers.numpy())
        return model.add_node("DequantizeLinear", [bias, model.input_name(scale)], node, **axis)
    if zeros.dim() and not bool((zeros == zeros[0]).all()):
        raise SchemeError(
            f"{name}: its channels have different zero points, which integer kernels do not take; "
            "use symmetric weights, or asymmetric ones per tensor"
        )
    stored, zero = _store_weight(model, name, str(zero_point.target), integers, zeros)
    return model.add_node("DequantizeLinear", [stored, model.input_name(scale), zero], node, **axis)


def _activation_zero_point(model: ModelBuilder, zero_point: fx.Node) -> str:
    return model.constant(str(zero_point.target), model.tensor(zero_point).numpy().astype(np.uint8))


def _store_weight(model: ModelBuilder, name: str, zero_name: str, integers: Tensor, zeros: Tensor) -> tuple[str, str]:
    """Adds the integers of a weight, [O, ...], and its zero points, [] or [O]; returns their names."""
    low, high = int(integers.min()), int(integers.max())
    signed = integers.dtype == torch.int8
    if model.storage.pack_int4 and high - low < 16 and (low >= -8 and high < 8 if signed else high < 16):
        return _pack(model, name, integers, signed=signed), _pack(model, zero_name, zeros, signed=signed)
    if signed and not model.storage.int8_weights and max(-low, high) > SAFE_WEIGHT:
        integers, zeros = (integers.to(torch.int32) + 128).to(torch.uint8), zeros + 128
    stored = integers.numpy()
    return model.constant(name, stored), model.constant(zero_name, zeros.numpy().astype(stored.dtype))


def _pack(model: ModelBuilder, name: str, integers: Tensor, *, signed: bool) -> str:
    """Adds integers of 4 bits, two to a byte, the first in the lower half; returns their name."""
    types = import_optional("onnx").TensorProto
    padding = [0] * (integers.numel() % 2)
    halves = np.append(integers.to(torch.int32).flatten().numpy() & 15, padding).astype(np.uint8)
    packed = bytes(halves[::2] | halves[1::2] << 4)
    model.initializers[name] = model.helper.make_tensor(
        name, types.INT4 if signed else types.UINT4, list(integers.shape), packed, raw=True
    )
    return name


def _read_quantize(node: NodeReader) -> fx.Node:
    _check_scale(node)
    return node.call(quantize, node.input(0), node.input(1), _read_zero_point(node), 0, 255)


def _read_dequantize(node: NodeReader) -> fx.Node:
    _check_scale(node)
    if len(node.inputs) > 2:
        axis = node.integer_attribute("axis") if "axis" in node.attributes else 0
        return node.call(dequantize, node.input(0), node.input(1), _read_zero_point(node), *([axis] if axis else []))
    zero = node.graph.constant("no_zero_point", torch.tensor(0, dtype=torch.int32))
    return node.call(dequantize, node.input(0), node.input(1), zero)


def _read_zero_point(node: NodeReader) -> fx.Node:
    """Adds the zero point as int32, the type it has in a simulation."""
    return node.graph.constant(f"{node.input(2).target}_wide", node.tensor(2).to(torch.int32))


def _check_scale(node: NodeReader) -> None:
    scale = node.tensor(1)
    if not bool((scale.isfinite() & (scale > 0)).all()):
        raise ValueError("a scale is not positive and finite")


QUANTIZER_OPS = (
    OnnxOp(target=quantize, name="QuantizeLinear", write=_write_quantize, read=_read_quantize),
    OnnxOp(target=dequantize, name="DequantizeLinear", write=_write_dequantize, read=_read_dequantize),
)
