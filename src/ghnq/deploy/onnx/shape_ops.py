"""What moves, selects or pads values, in ONNX."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from ghnq.deploy.graph.supported_ops import aten
from ghnq.deploy.onnx.model_builder import ModelBuilder
from ghnq.deploy.onnx.node_reader import NodeReader
from ghnq.deploy.onnx.onnx_op import OnnxOp


def _write_reshape(model: ModelBuilder, node: fx.Node, x: fx.Node, shape: Sequence[int]) -> str:
    sizes = model.constant(f"{node.name}_shape", np.array(shape, dtype=np.int64))
    return model.add_node("Reshape", [model.input_name(x), sizes], node)


def _read_reshape(node: NodeReader) -> fx.Node:
    return node.call(aten.reshape.default, node.input(0), node.integers(1))


def _write_permute(model: ModelBuilder, node: fx.Node, x: fx.Node, dims: Sequence[int]) -> str:
    return model.add_node("Transpose", [model.input_name(x)], node, perm=dims)


def _read_permute(node: NodeReader) -> fx.Node:
    return node.call(aten.permute.default, node.input(0), node.integers_attribute("perm"))


def _write_cat(model: ModelBuilder, node: fx.Node, tensors: Sequence[fx.Node], dim: int) -> str:
    return model.add_node("Concat", [model.input_name(tensor) for tensor in tensors], node, axis=dim)


def _read_cat(node: NodeReader) -> fx.Node:
    return node.call(aten.cat.default, list(node.inputs), node.integer_attribute("axis"))


def _write_slice(model: ModelBuilder, node: fx.Node, x: fx.Node, dim: int, start: int, end: int, step: int) -> str:
    axis, first, last, stride = (
        model.constant(f"{node.name}_{name}", np.array([number], dtype=np.int64))
        for name, number in (("dim", dim), ("start", start), ("end", end), ("step", step))
    )
    return model.add_node("Slice", [model.input_name(x), first, last, axis, stride], node)


def _read_slice(node: NodeReader) -> fx.Node:
    start, end, dim, step = (node.integers(i)[0] for i in (1, 2, 3, 4))
    return node.call(aten.slice.Tensor, node.input(0), dim, start, end, step)


def _write_pad(model: ModelBuilder, node: fx.Node, x: fx.Node, sides: Sequence[int], value: float) -> str:
    """Writes a padding; torch lists sides from the last dimension on, ONNX all starts and then all ends."""
    fill = model.constant(f"{node.name}_value", np.array(value, dtype=np.float32))
    return model.add_node("Pad", [model.input_name(x), _pads(model, node, x, sides), fill], node)


def _write_reflection(model: ModelBuilder, node: fx.Node, x: fx.Node, sides: Sequence[int]) -> str:
    return model.add_node("Pad", [model.input_name(x), _pads(model, node, x, sides)], node, mode="reflect")


def _write_replication(model: ModelBuilder, node: fx.Node, x: fx.Node, sides: Sequence[int]) -> str:
    return model.add_node("Pad", [model.input_name(x), _pads(model, node, x, sides)], node, mode="edge")


def _pads(model: ModelBuilder, node: fx.Node, x: fx.Node, sides: Sequence[int]) -> str:
    rank = x.meta["val"].dim()
    starts, ends = [0] * rank, [0] * rank
    for i in range(len(sides) // 2):
        starts[-1 - i], ends[-1 - i] = sides[2 * i], sides[2 * i + 1]
    return model.constant(f"{node.name}_pads", np.array(starts + ends, dtype=np.int64))


def _read_pad(node: NodeReader) -> fx.Node:
    sizes = node.integers(1)
    starts, ends = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    sides = [side for both in zip(reversed(starts), reversed(ends), strict=True) for side in both]
    mode = node.text_attribute("mode") if "mode" in node.attributes else "constant"
    if mode == "constant":
        return node.call(aten.constant_pad_nd.default, node.input(0), sides, node.number(2))
    function = {"reflect": aten.reflection_pad2d.default, "edge": aten.replication_pad2d.default}[mode]
    return node.call(function, node.input(0), sides[:4])


SHAPE_OPS = (
    OnnxOp(target=aten.reshape.default, name="Reshape", write=_write_reshape, read=_read_reshape),
    OnnxOp(target=aten.permute.default, name="Transpose", write=_write_permute, read=_read_permute),
    OnnxOp(target=aten.cat.default, name="Concat", write=_write_cat, read=_read_cat),
    OnnxOp(target=aten.slice.Tensor, name="Slice", write=_write_slice, read=_read_slice),
    OnnxOp(target=aten.constant_pad_nd.default, name="Pad", write=_write_pad, read=_read_pad),
    OnnxOp(target=aten.reflection_pad2d.default, name="Pad", write=_write_reflection, read=None),
    OnnxOp(target=aten.replication_pad2d.default, name="Pad", write=_write_replication, read=None),
)
