"""An ONNX model under construction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, fx
from torch.fx.node import Argument

from ghnq._version import __version__
from ghnq.deploy.graph.quantize_ops import dequantize
from ghnq.deploy.graph.rewriter import node_argument
from ghnq.deploy.onnx.storage import Storage
from ghnq.optional_imports import import_optional

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


class ModelBuilder:
    """The nodes and constants of a model that computes what a graph computes.

    Attributes:
        storage: How integers are stored.
        names: The name of the result in the model, for each node of the graph.
        initializers: The constants by name.
    """

    def __init__(self, simulation: fx.GraphModule, storage: Storage) -> None:
        self.simulation, self.storage = simulation, storage
        self.helper, self.numpy_helper = import_optional("onnx.helper"), import_optional("onnx.numpy_helper")
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.names: dict[fx.Node, str] = {}
        self.results: set[str] = set()
        self.input_shape: list[int | str] = []
        self.output_shape: list[int | str] = []

    def add_input(self, node: fx.Node) -> None:
        """Makes a placeholder the input `images`."""
        self.names[node] = "images"
        self.input_shape = _free_batch(node)

    def add_node(self, operator: str, inputs: list[str], node: fx.Node, **attributes: object) -> str:
        """Adds an ONNX node that belongs to a node of the graph, and returns the name of its result."""
        name = node.meta.get("layer") or node.name
        out = node.name if node.name not in self.results else f"{node.name}_{operator}_{len(self.nodes)}"
        self.results.add(out)
        self.nodes.append(
            self.helper.make_node(operator, inputs, [out], name=f"{name}_{operator}_{len(self.nodes)}", **attributes)
        )
        return out

    def add_output(self, node: fx.Node) -> None:
        """Makes the result of a node the output `logits`."""
        self.output_shape = _free_batch(node)
        self.nodes.append(self.helper.make_node("Identity", [self.names[node]], ["logits"], name="logits"))
        if self.nodes[-2].output[0] == self.names[node] and len(node.users) == 1:
            self.nodes.pop()
            self.nodes[-1].output[0] = "logits"

    def input_name(self, argument: Argument) -> str:
        """Returns the name of a result or of a float constant, which is added; an empty name for None."""
        if argument is None:
            return ""
        assert isinstance(argument, fx.Node)
        if argument.op == "get_attr":
            return self.constant(str(argument.target), self.tensor(argument).numpy())
        return self.names[argument]

    def in_float(self, name: str, node: fx.Node) -> str:
        """Adds a clip that changes no value, and returns its name: what reads it is computed in float.

        Args:
            name: A dequantized tensor.
            node: The node that it belongs to.
        """
        largest = np.finfo(np.float32).max
        limits = [self.constant("lowest", -largest), self.constant("largest", largest)]
        return self.add_node("Clip", [name, *limits], node)

    def tensor(self, node: fx.Node) -> Tensor:
        """Returns the tensor that a `get_attr` node reads."""
        value: Tensor = getattr(self.simulation, str(node.target))
        return value.detach().cpu().contiguous()

    def kernel_shape(self, weight: fx.Node) -> list[int]:
        """Returns height and width of a convolution's kernel."""
        stored = node_argument(weight) if weight.target is dequantize else weight
        return list(self.tensor(stored).shape[2:])

    def constant(self, name: str, values: ArrayLike) -> str:
        """Adds a constant unless it is there already, and returns its name."""
        if name not in self.initializers:
            self.initializers[name] = self.numpy_helper.from_array(np.asarray(values), name)
        return name

    def model(self, opset: int, ir_version: int) -> ModelProto:
        """Returns the finished model."""
        float32 = import_optional("onnx").TensorProto.FLOAT
        graph = self.helper.make_graph(
            self.nodes,
            "ghnq",
            [self.helper.make_tensor_value_info("images", float32, self.input_shape)],
            [self.helper.make_tensor_value_info("logits", float32, self.output_shape)],
            list(self.initializers.values()),
        )
        model: ModelProto = self.helper.make_model(
            graph,
            opset_imports=[self.helper.make_opsetid("", opset)],
            ir_version=ir_version,
            producer_name="ghnq",
            producer_version=__version__,
        )
        return model


def _free_batch(node: fx.Node) -> list[int | str]:
    """Returns the shape of a node's tensor, with `batch` in place of a free size."""
    return [size if isinstance(size, int) else "batch" for size in node.meta["val"].shape]
