"""From the simulation's graph to an ONNX model, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ghnq._version import __version__
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.saturation import SAFE_WEIGHT
from ghnq.deploy.onnx.op_table import WRITERS
from ghnq.errors import SchemeError
from ghnq.optional_imports import import_optional

OPSET, IR_VERSION = 17, 8
"""Old enough for other tools; from 22 on, runtimes may not know integer pooling yet."""

PACKED_OPSET, PACKED_IR_VERSION = 21, 10
"""The first opset with INT4 tensors."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How integers are stored.

    pack_int4: weights of up to 4 bits as INT4, two to a byte. Runtimes then compute convolutions in float.
    int8_weights: 8-bit weights as int8 instead of uint8 with zero point 128. The same values, and the faster kernel on
        processors with VNNI; without VNNI, ONNX Runtime's kernel for them saturates and gives other results.
    """

    pack_int4: bool = False
    int8_weights: bool = False


def write_model(simulation: fx.GraphModule, *, storage: Storage, metadata: Mapping[str, str]) -> Any:
    """Returns the ONNX model of a simulation, checked: input `images` [batch, C, H, W], output `logits` [batch, K]."""
    onnx = import_optional("onnx")
    writer = Writer(simulation, storage)
    for node in simulation.graph.nodes:
        if node.op == "call_function":
            writer.write(node)
        elif node.op == "output":
            writer.rename_output(node.args[0])
    model = writer.model()
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


class Writer:
    """The model under construction; `names` maps nodes to the names of their results."""

    def __init__(self, simulation: fx.GraphModule, storage: Storage) -> None:
        self.helper, self.numpy_helper = import_optional("onnx.helper"), import_optional("onnx.numpy_helper")
        self.types: Any = import_optional("onnx").TensorProto
        self.simulation, self.storage = simulation, storage
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.names: dict[fx.Node, str] = {}
        self.results: set[str] = set()
        self.output_shape: tuple[int | str, ...] = ()
        for node in simulation.graph.nodes:
            if node.op == "placeholder":
                self.names[node] = "images"
                self.input_shape = [d if isinstance(d, int) else "batch" for d in node.meta["val"].shape]

    def write(self, node: fx.Node) -> None:
        """Writes one call of the graph."""
        self.names[node] = self._quantize(node) if node.target is quantize else (
            self._dequantize(node) if node.target is dequantize else WRITERS[node.target](self, node)
        )  # fmt: skip

    def emit(self, op: str, inputs: list[str], node: fx.Node, **attributes: Any) -> str:
        """Adds an ONNX node and returns the name of its result."""
        name = node.meta.get("layer") or node.name
        out = node.name if node.name not in self.results else f"{node.name}_{op}_{len(self.nodes)}"
        self.results.add(out)
        self.nodes.append(self.helper.make_node(op, inputs, [out], name=f"{name}_{op}_{len(self.nodes)}", **attributes))
        return out

    def name(self, node: Any) -> str:
        """The name of a result, or of a float tensor, which becomes an initializer; empty for None."""
        if node is None:
            return ""
        if node.op == "get_attr":
            return self.initializer(str(node.target), self.tensor(node).numpy())
        return self.names[node]

    def tensor(self, node: fx.Node) -> Tensor:
        """The values of a `get_attr` node."""
        value: Tensor = getattr(self.simulation, str(node.target))
        return value.detach().cpu().contiguous()

    def kernel(self, weight: fx.Node) -> list[int]:
        """Height and width of a convolution's kernel."""
        source = weight.args[0] if weight.target is dequantize else weight
        assert isinstance(source, fx.Node)
        return list(self.tensor(source).shape[2:])

    def initializer(self, name: str, values: Any) -> str:
        """Adds a constant once and returns its name."""
        if name not in self.initializers:
            self.initializers[name] = self.numpy_helper.from_array(np.asarray(values), name)
        return name

    def rename_output(self, node: fx.Node) -> None:
        """Gives the network's result the name `logits`."""
        self.output_shape = tuple(d if isinstance(d, int) else "batch" for d in node.meta["val"].shape)
        self.nodes.append(self.helper.make_node("Identity", [self.names[node]], ["logits"], name="logits"))
        if self.nodes[-2].output[0] == self.names[node] and len(node.users) == 1:
            self.nodes.pop()
            self.nodes[-1].output[0] = "logits"

    def model(self) -> Any:
        """The finished model."""
        float32 = self.types.FLOAT
        graph = self.helper.make_graph(
            self.nodes, "ghnq",
            [self.helper.make_tensor_value_info("images", float32, self.input_shape)],
            [self.helper.make_tensor_value_info("logits", float32, list(self.output_shape))],
            list(self.initializers.values()),
        )  # fmt: skip
        packed = self.storage.pack_int4
        return self.helper.make_model(
            graph, opset_imports=[self.helper.make_opsetid("", PACKED_OPSET if packed else OPSET)],
            ir_version=PACKED_IR_VERSION if packed else IR_VERSION, producer_name="ghnq", producer_version=__version__,
        )  # fmt: skip

    def _quantize(self, node: fx.Node) -> str:
        x, scale, zero_point, _, largest = node.args
        assert isinstance(x, fx.Node)
        out = self.emit("QuantizeLinear", [self.name(x), self.name(scale), self._zero(zero_point)], node)
        # uint8 ends at 255; fewer bits end earlier. Rounding what was just dequantized is marked in the same way, for
        # ONNX Runtime merges two neighbouring pairs of Q and DQ into one with other values.
        if largest != 255 or x.target is dequantize:
            top = self.initializer(f"largest_{largest}", np.array(largest, dtype=np.uint8))
            out = self.emit("Clip", [out, "", top], node)
        return out

    def _zero(self, node: Any) -> str:
        return self.initializer(str(node.target), self.tensor(node).numpy().astype(np.uint8))

    def _dequantize(self, node: fx.Node) -> str:
        q, scale, zero_point = node.args
        assert isinstance(q, fx.Node)
        assert isinstance(scale, fx.Node)
        if q.op != "get_attr":
            return self.emit("DequantizeLinear", [self.names[q], self.name(scale), self._zero(zero_point)], node)
        assert isinstance(zero_point, fx.Node)
        axis = {"axis": 0} if self.tensor(scale).dim() else {}
        name, integers, zeros = str(q.target), self.tensor(q), self.tensor(zero_point)
        if integers.dtype == torch.int32:
            bias = self.initializer(name, integers.numpy())
            return self.emit("DequantizeLinear", [bias, self.name(scale)], node, **axis)
        if zeros.dim() and not bool((zeros == zeros[0]).all()):
            raise SchemeError(
                f"{name}: its channels have different zero points, which integer kernels do not take; "
                "use symmetric weights, or asymmetric ones per tensor"
            )
        stored, zero = self._stored(name, str(zero_point.target), integers, zeros)
        return self.emit("DequantizeLinear", [stored, self.name(scale), zero], node, **axis)

    def _stored(self, name: str, zero_name: str, integers: Tensor, zeros: Tensor) -> tuple[str, str]:
        """Adds a weight's integers and zero points in the type they are stored in."""
        low, high = int(integers.min()), int(integers.max())
        signed = integers.dtype == torch.int8
        if self.storage.pack_int4 and high - low < 16 and (low >= -8 and high < 8 if signed else high < 16):
            kind = self.types.INT4 if signed else self.types.UINT4
            for each, values in ((name, integers), (zero_name, zeros)):
                self.initializers[each] = self.helper.make_tensor(
                    each, kind, list(values.shape), _packed(values), raw=True
                )
            return name, zero_name
        if signed and not self.storage.int8_weights and max(-low, high) > SAFE_WEIGHT:
            integers, zeros = (integers.to(torch.int32) + 128).to(torch.uint8), zeros + 128
        kind = integers.numpy().dtype
        return self.initializer(name, integers.numpy()), self.initializer(zero_name, zeros.numpy().astype(kind))


def _packed(values: Tensor) -> bytes:
    """Integers of 4 bits, two to a byte, the first in the lower half."""
    halves = np.append(values.to(torch.int32).flatten().numpy() & 15, [0] * (values.numel() % 2)).astype(np.uint8)
    return bytes(halves[::2] | halves[1::2] << 4)
