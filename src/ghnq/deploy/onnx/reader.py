"""From an ONNX file that we wrote back to the simulation: the same words, the same arithmetic, in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ghnq.deploy.graph.capture import module_of
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.supported_ops import LAYERS
from ghnq.deploy.metadata import FORMAT, FORMAT_KEY, Facts
from ghnq.deploy.onnx.op_table import READERS
from ghnq.errors import ExportError
from ghnq.optional_imports import import_optional


def load_model(path: Path) -> Any:
    """Returns the checked ONNX model of a file that `ghnq export` wrote.

    Raises ExportError for a file that is missing, no ONNX, damaged, or written by something else.
    """
    onnx = import_optional("onnx")
    if not path.is_file():
        raise ExportError(f"there is no file '{path}'; write one with: ghnq export MODEL --out {path.name}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        # Protobuf and onnx each have their own ways to refuse bytes.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"'{path}' is no ONNX model, or a damaged one ({first})") from error
    written = {prop.key: prop.value for prop in model.metadata_props}.get(FORMAT_KEY)
    if written != FORMAT:
        by = model.producer_name or "an unknown program"
        raise ExportError(
            f"'{path}' was not written by ghnq export (format {written or 'none'}, producer {by}): only for "
            "its own files ghnq knows what the simulation is"
        )
    return model


def facts_of(model: Any, path: Path) -> Facts:
    """What the file says of itself; raises ExportError where that is damaged, or not what its graph takes."""
    facts = Facts.from_properties({prop.key: prop.value for prop in model.metadata_props}, str(path))
    sizes = [size for images in model.graph.input for size in images.type.tensor_type.shape.dim]
    facts.check_images([size.dim_value if size.HasField("dim_value") else "batch" for size in sizes], path)
    return facts


def read_simulation(model: Any, origin: str) -> fx.GraphModule:
    """The simulation that a model states, rebuilt from its nodes; images [B, C, H, W] in, logits out.

    Raises ExportError naming the first node that is not of our words.
    """
    return Reader(model, origin).read()


class Reader:
    """The graph under construction; names of ONNX results map to nodes."""

    def __init__(self, model: Any, origin: str) -> None:
        self.model, self.origin = model, origin
        self.helper = import_optional("onnx.helper")
        to_array = import_optional("onnx.numpy_helper").to_array
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.at: dict[str, fx.Node] = {}
        for tensor in model.graph.initializer:
            array = np.array(to_array(tensor))
            narrow = array.dtype.kind not in "fiu" or array.dtype.itemsize == 0 or "int4" in str(array.dtype)
            self.tensors[tensor.name.replace(".", "_")] = torch.from_numpy(array.astype(np.int32) if narrow else array)

    def read(self) -> fx.GraphModule:
        images, logits = self.model.graph.input, self.model.graph.output
        if [i.name for i in images] != ["images"] or [o.name for o in logits] != ["logits"]:
            raise ExportError(f"'{self.origin}' has other inputs or outputs than images and logits")
        self.at["images"] = self.graph.placeholder("images")
        for node in self.model.graph.node:
            try:
                self.at[node.output[0]] = self._node(node)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise ExportError(
                    f"'{self.origin}': node {node.name!r} ({node.op_type}) is not as ghnq writes it: {error!r}"
                ) from error
        self.graph.output(self.at["logits"])
        return module_of(self.graph, self.tensors)

    def call(self, target: Any, *args: Any) -> fx.Node:
        """Adds a call."""
        return self.graph.call_function(target, args)

    def tensor(self, node: fx.Node) -> Tensor:
        """The values of a constant."""
        return self.tensors[str(node.target)]

    def numbers(self, node: fx.Node) -> list[int]:
        """The values of a constant list."""
        return [int(v) for v in self.tensor(node).flatten().tolist()]

    def number(self, node: fx.Node) -> float:
        """The value of a constant number."""
        value: float = self.tensor(node).item()
        return value

    def _node(self, node: Any) -> fx.Node:
        inputs = [self._input(name) for name in node.input]
        attributes = {a.name: _listed(self.helper.get_attribute_value(a)) for a in node.attribute}
        if node.op_type == "Identity":
            assert inputs[0] is not None
            return inputs[0]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = self.tensor(inputs[1]) if inputs[1] is not None else torch.zeros(())
            if not bool((scale.isfinite() & (scale > 0)).all()):
                raise ValueError("a scale that is no positive number")
        if node.op_type == "QuantizeLinear":
            return self.call(quantize, inputs[0], inputs[1], self._wide(inputs[2]), 0, 255)
        if node.op_type == "DequantizeLinear":
            zero = self._wide(inputs[2]) if len(inputs) > 2 else self._constant("no_zero_point", torch.tensor(0).int())
            return self.call(dequantize, inputs[0], inputs[1], zero)
        if node.op_type not in READERS:
            raise ExportError(f"'{self.origin}': node {node.name!r} is a {node.op_type}, which ghnq does not write")
        call = READERS[node.op_type](self, inputs, attributes)
        layer, found, _ = node.name.rpartition(f"_{node.op_type}_")
        if found and call.target in LAYERS:
            call.meta["layer"] = layer
        return call

    def _wide(self, node: Any) -> fx.Node:
        """A zero point as int32, as the simulation has it."""
        return self._constant(f"{node.target}_wide", self.tensor(node).to(torch.int32))

    def _input(self, name: str) -> fx.Node | None:
        if not name:
            return None
        if name in self.at:
            return self.at[name]
        return self._constant(name.replace(".", "_"), self.tensors[name.replace(".", "_")])

    def _constant(self, name: str, tensor: Tensor) -> fx.Node:
        self.tensors[name] = tensor
        return self.graph.create_node("get_attr", name)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) or type(value).__name__.startswith("Repeated") else value
