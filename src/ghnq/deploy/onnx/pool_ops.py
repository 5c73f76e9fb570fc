"""Pooling and resizing in ONNX."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from ghnq.deploy.graph.quantize_ops import dequantize
from ghnq.deploy.graph.supported_ops import aten, is_global_average
from ghnq.deploy.onnx.model_builder import ModelBuilder
from ghnq.deploy.onnx.node_reader import NodeReader
from ghnq.deploy.onnx.onnx_op import OnnxOp


def _pads(
    node: fx.Node, x: fx.Node, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil_mode: bool
) -> list[int]:
    """Returns the padding of a pool: starts, then ends.

    ONNX's `ceil_mode` gives another size than torch's where the last window would begin in the padding. Windows that
    reach beyond the padding are written as more padding at the end, which neither maximum nor average counts.
    """
    ends = list(padding)
    if ceil_mode:
        sizes = zip(node.meta["val"].shape[2:], stride, kernel, x.meta["val"].shape[2:], padding, strict=True)
        ends = [max(p, (out - 1) * step + window - size - p) for out, step, window, size, p in sizes]
    return [*padding, *ends]


def _read_pads(node: NodeReader) -> tuple[list[int], bool]:
    """Returns the padding of a pool, and whether it is one with `ceil_mode`."""
    pads = node.integers_attribute("pads")
    return pads[:2], pads[2:] != pads[:2]


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
        pads=_pads(node, x, kernel_size, stride, padding, ceil_mode),
        count_include_pad=int(count_include_pad),
    )


def _read_avg_pool(node: NodeReader) -> fx.Node:
    padding, ceil_mode = _read_pads(node)
    return node.call(
        aten.avg_pool2d.default,
        node.input(0),
        node.integers_attribute("kernel_shape"),
        node.integers_attribute("strides"),
        padding,
        ceil_mode,
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
    reach = [step * (size - 1) + 1 for size, step in zip(kernel_size, dilation, strict=True)]
    return model.add_node(
        "MaxPool",
        [model.input_name(x)],
        node,
        kernel_shape=kernel_size,
        strides=stride,
        pads=_pads(node, x, reach, stride, padding, ceil_mode),
        dilations=dilation,
    )


def _read_max_pool(node: NodeReader) -> fx.Node:
    padding, ceil_mode = _read_pads(node)
    return node.call(
        aten.max_pool2d.default,
        node.input(0),
        node.integers_attribute("kernel_shape"),
        node.integers_attribute("strides"),
        padding,
        node.integers_attribute("dilations"),
        # A file of an earlier version has it as an attribute.
        ceil_mode or bool(node.attributes.get("ceil_mode", 0)),
    )


def _write_mean(model: ModelBuilder, node: fx.Node, x: fx.Node, dims: Sequence[int], keep: bool) -> str:
    if is_global_average(node):
        return model.add_node("GlobalAveragePool", [model.input_name(x)], node)
    if model.storage.pack_int4:  # an input since opset 18
        axes = model.constant(f"{node.name}_axes", np.array(dims, dtype=np.int64))
        return model.add_node("ReduceMean", [model.input_name(x), axes], node, keepdims=int(keep))
    return model.add_node("ReduceMean", [model.input_name(x)], node, axes=dims, keepdims=int(keep))


def _read_mean(node: NodeReader) -> fx.Node:
    axes = node.integers_attribute("axes") if "axes" in node.attributes else node.integers(1)
    keep = bool(node.integer_attribute("keepdims"))
    return node.call(aten.mean.dim, node.input(0), axes, keep)


def _read_global_average(node: NodeReader) -> fx.Node:
    return node.call(aten.mean.dim, node.input(0), [2, 3], True)


def _resize(model: ModelBuilder, node: fx.Node, source: str, factors: Sequence[float], **attributes: str) -> str:
    """Writes a resize by factors: with sizes, the batch could not be free."""
    name = model.constant(f"{node.name}_factors", np.array([1, 1, *factors], dtype=np.float32))
    return model.add_node("Resize", [source, "", name], node, **attributes)


def _write_nearest(model: ModelBuilder, node: fx.Node, x: fx.Node, size: None, factors: Sequence[float]) -> str:
    options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _resize(model, node, model.input_name(x), factors, mode="nearest", **options)


def _write_bilinear(
    model: ModelBuilder, node: fx.Node, x: fx.Node, size: None, align_corners: bool, factors: Sequence[float]
) -> str:
    source = model.input_name(x)
    if x.target is dequantize:  # the runtime's kernel for integers rounds otherwise
        source = model.in_float(source, x)
    coordinates = "align_corners" if align_corners else "half_pixel"
    return _resize(model, node, source, factors, mode="linear", coordinate_transformation_mode=coordinates)


def _read_resize(node: NodeReader) -> fx.Node:
    factors = [float(factor) for factor in node.tensor(2)[2:].tolist()]
    if node.text_attribute("mode") == "nearest":
        return node.call(aten.upsample_nearest2d.vec, node.input(0), None, factors)
    align_corners = node.text_attribute("coordinate_transformation_mode") == "align_corners"
    return node.call(aten.upsample_bilinear2d.vec, node.input(0), None, align_corners, factors)


POOL_OPS = (
    OnnxOp(target=aten.avg_pool2d.default, name="AveragePool", write=_write_avg_pool, read=_read_avg_pool),
    OnnxOp(target=aten.max_pool2d.default, name="MaxPool", write=_write_max_pool, read=_read_max_pool),
    OnnxOp(target=aten.mean.dim, name="ReduceMean", write=_write_mean, read=_read_mean),
    OnnxOp(target=aten.mean.dim, name="GlobalAveragePool", write=None, read=_read_global_average),
    OnnxOp(target=aten.upsample_nearest2d.vec, name="Resize", write=_write_nearest, read=_read_resize),
    OnnxOp(target=aten.upsample_bilinear2d.vec, name="Resize", write=_write_bilinear, read=None),
)
