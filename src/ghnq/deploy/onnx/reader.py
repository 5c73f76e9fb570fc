"""From an ONNX file that this package wrote back to the simulation: the same operators and arithmetic, in torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx

from ghnq.deploy.graph.rewriter import GraphBuilder
from ghnq.deploy.graph.supported_ops import LAYERS
from ghnq.deploy.metadata import FORMAT, FORMAT_KEY, Facts
from ghnq.deploy.onnx.node_reader import Attribute, NodeReader
from ghnq.deploy.onnx.op_table import READ
from ghnq.errors import ExportError
from ghnq.optional_imports import import_optional

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, TensorProto


def load_model(path: Path) -> ModelProto:
    """Returns the checked ONNX model of a file that `ghnq export` wrote.

    Raises:
        ExportError: The file is missing, damaged, not ONNX, or written by another program.
    """
    onnx = import_optional("onnx")
    if not path.is_file():
        raise ExportError(f"there is no file '{path}'; write one with: ghnq export MODEL --out {path.name}")
    try:
        model: ModelProto = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        # Protobuf and onnx have no common error class for invalid bytes.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"'{path}' is not an ONNX model, or is damaged ({first})") from error
    written = {prop.key: prop.value for prop in model.metadata_props}.get(FORMAT_KEY)
    if written != FORMAT:
        raise ExportError(
            f"'{path}' was not written by ghnq export (format {written or 'none'}, producer "
            f"{model.producer_name or 'unknown'}); the simulation is known only of files that ghnq export wrote"
        )
    return model


def facts_of(model: ModelProto, path: Path) -> Facts:
    """Returns the metadata of a model.

    Raises:
        ExportError: The metadata are damaged, or the graph takes other images than they say.
    """
    facts = Facts.from_properties({prop.key: prop.value for prop in model.metadata_props}, str(path))
    sizes = [size for images in model.graph.input for size in images.type.tensor_type.shape.dim]
    facts.check_images([size.dim_value if size.HasField("dim_value") else "batch" for size in sizes], path)
    return facts


def read_simulation(model: ModelProto, origin: str) -> fx.GraphModule:
    """Returns the simulation that a model expresses; images [B, C, H, W] in, logits [B, K] out.

    Raises:
        ExportError: A node is not as this package writes it; the message names the first.
    """
    reader = _Reader(model, origin)
    for node in model.graph.node:
        reader.add(node)
    return reader.module()


class _Reader:
    """The graph that a model is read to.

    Attributes:
        constants: The constants of the model by name.
        results: The node of the graph for each result in the model, by name.
    """

    def __init__(self, model: ModelProto, origin: str) -> None:
        images, logits = model.graph.input, model.graph.output
        if [value.name for value in images] != ["images"] or [value.name for value in logits] != ["logits"]:
            raise ExportError(f"'{origin}' has other inputs or outputs than images and logits")
        self.origin = origin
        self.graph = GraphBuilder()
        self.constants = {tensor.name: _to_tensor(tensor) for tensor in model.graph.initializer}
        self.results = {"images": self.graph.graph.placeholder("images")}

    def add(self, node: NodeProto) -> None:
        """Adds what a node of the model computes.

        Raises:
            ExportError: This package does not write such a node.
        """
        try:
            self.results[node.output[0]] = self._read(node)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ExportError(
                f"'{self.origin}': node {node.name!r} ({node.op_type}) is not as ghnq writes it: {error!r}"
            ) from error

    def module(self) -> fx.GraphModule:
        """Returns the finished graph."""
        self.graph.graph.output(self.results["logits"])
        return self.graph.module()

    def _read(self, node: NodeProto) -> fx.Node:
        attributes = {attribute.name: _attribute_value(attribute) for attribute in node.attribute}
        reader = NodeReader(self.graph, [self._input(name) for name in node.input], attributes)
        if node.op_type == "Identity":
            return reader.input(0)
        if node.op_type not in READ:
            raise ExportError(f"'{self.origin}': node {node.name!r} is a {node.op_type}, which ghnq does not write")
        call = READ[node.op_type](reader)
        layer, found, _ = node.name.rpartition(f"_{node.op_type}_")
        if found and call.target in LAYERS:
            call.meta["layer"] = layer
        return call

    def _input(self, name: str) -> fx.Node | None:
        if not name:
            return None
        return self.results[name] if name in self.results else self.graph.constant(name, self.constants[name])


def _to_tensor(constant: TensorProto) -> Tensor:
    """Returns the values of a constant; integers of 4 bits as int32."""
    array = np.array(import_optional("onnx.numpy_helper").to_array(constant))
    is_packed = array.dtype.kind not in "fiu" or array.dtype.itemsize == 0 or "int4" in str(array.dtype)
    return torch.from_numpy(array.astype(np.int32) if is_packed else array)


def _attribute_value(attribute: AttributeProto) -> Attribute:
    value = import_optional("onnx.helper").get_attribute_value(attribute)
    is_list = isinstance(value, list | tuple) or type(value).__name__.startswith("Repeated")
    converted: Attribute = list(value) if is_list else value
    return converted
