"""From the graph of a simulation to an ONNX model, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import fx

from ghnq.deploy.graph.rewriter import node_argument
from ghnq.deploy.onnx.model_builder import ModelBuilder
from ghnq.deploy.onnx.op_table import WRITE
from ghnq.deploy.onnx.storage import Storage
from ghnq.optional_imports import import_optional

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 17, 8
"""Old enough for other tools; from 22 on, runtimes may not know integer pooling yet."""

PACKED_OPSET, PACKED_IR_VERSION = 21, 10
"""The first opset with INT4 tensors."""


def write_model(simulation: fx.GraphModule, *, storage: Storage, metadata: Mapping[str, str]) -> ModelProto:
    """Returns the ONNX model of a simulation, checked: input `images` [batch, C, H, W], output `logits` [batch, K].

    Raises:
        ExportError: An operator cannot be expressed in ONNX.
        SchemeError: A weight's channels have different zero points.
    """
    onnx = import_optional("onnx")
    builder = ModelBuilder(simulation, storage)
    for node in simulation.graph.nodes:
        if node.op == "placeholder":
            builder.add_input(node)
        elif node.op == "call_function":
            builder.names[node] = WRITE[node.target](builder, node, *node.args)
        elif node.op == "output":
            builder.add_output(node_argument(node))
    versions = (PACKED_OPSET, PACKED_IR_VERSION) if storage.pack_int4 else (OPSET, IR_VERSION)
    model = builder.model(*versions)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model
