"""From a program in pt2e words that we wrote back to the simulation, with the arithmetic of `ghnq.quant`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from ghnq.deploy.graph.builder import full_args
from ghnq.deploy.graph.capture import module_of
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.supported_ops import KINDS, LAYERS, aten
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.deploy.pt2e.writer import clip_of
from ghnq.errors import ExportError


def read_program(program: ExportedProgram, origin: str) -> fx.GraphModule:
    """The simulation that a program states, rebuilt from its nodes; images [B, C, H, W] in, logits [B, K] out.

    Raises ExportError naming the first node that is not of our words.
    """
    return _Reader(program, origin).read()


class _Reader:
    """The graph under construction; `at` maps nodes of the program to ours."""

    def __init__(self, program: ExportedProgram, origin: str) -> None:
        self.program, self.origin, self.words = program, origin, quantized_decomposed()
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.at: dict[fx.Node, fx.Node] = {}

    def read(self) -> fx.GraphModule:
        buffers = self.program.graph_signature.inputs_to_buffers
        for node in self.program.graph.nodes:
            try:
                if node.op == "placeholder":
                    self._placeholder(node, buffers.get(node.name))
                elif node.op == "output":
                    self.graph.output(self.at[node.args[0][0]])
                else:
                    self.at[node] = self._call(node)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise ExportError(f"'{self.origin}': node '{node.name}' is not as ghnq writes it: {error!r}") from error
        self.graph.eliminate_dead_code()
        return module_of(self.graph, self.tensors)

    def _placeholder(self, node: fx.Node, buffer: str | None) -> None:
        if buffer is None:
            self.at[node] = self.graph.placeholder("images")
        else:
            self.at[node] = self._constant(buffer, self.program.state_dict[buffer])

    def _call(self, node: fx.Node) -> fx.Node:
        words = self.words
        if node.target is words.quantize_per_tensor.default:
            return self._quantize(node)
        if node.target is words.dequantize_per_tensor.default:
            return self._dequantize(node)
        if node.target is words.dequantize_per_channel.default:
            return self._channels(node)
        if node.target is aten.clone.default:
            return self.at[self._source(node)]
        if node.target not in KINDS:
            raise ExportError(f"'{self.origin}': node '{node.name}' is a {node.target}, which ghnq does not write")
        given = full_args(node) if node.target in LAYERS else node.args
        args: Any = fx.map_arg(tuple(given), lambda each: self.at[each])
        if node.target in LAYERS:
            args = *args[:2], self._bias(args[:3]), *args[3:]
        assert callable(node.target)
        call = self.graph.call_function(node.target, args, fx.map_arg(node.kwargs, lambda each: self.at[each]))
        if node.target in LAYERS:
            call.meta["layer"] = self._name(node)
        return call

    def _quantize(self, node: fx.Node) -> fx.Node:
        arguments: Any = node.args
        _, scale, zero_point, smallest, largest, dtype = arguments
        x = self._source(node)
        if smallest != 0 or dtype is not torch.uint8:
            raise ValueError(f"integers of {dtype} from {smallest}")
        if largest != 255:
            if x.target is not aten.clamp.default or x.args[1:] != clip_of(scale, zero_point, 0, largest):
                raise ValueError("fewer than 8 bits without the clip to their grid")
            x = self._source(x)
        args = self.at[x], *self._grid(node.name, scale, zero_point), 0, largest
        return self.graph.call_function(quantize, args)

    def _dequantize(self, node: fx.Node) -> fx.Node:
        arguments: Any = node.args
        _, scale, zero_point, *_ = arguments
        integers = self.at[self._source(node)]
        if integers.target is quantize:
            grid = tuple(self.tensors[str(arg.target)] for arg in integers.args[1:3])  # type: ignore[union-attr]
            if (grid[0].item(), int(grid[1])) != (scale, zero_point):
                raise ValueError("read on another grid than it was written on")
            return self.graph.call_function(dequantize, (integers, *integers.args[1:3]))
        return self.graph.call_function(dequantize, (integers, *self._grid(node.name, scale, zero_point)))

    def _channels(self, node: fx.Node) -> fx.Node:
        integers, scales, zeros = (self.at[each] for each in node.args[:3])  # type: ignore[index]
        if bool(self.tensors[str(zeros.target)].any()) or node.args[3] != 0:
            raise ValueError("channels with zero points, or not the output channels")
        no_zero = self._constant("no_zero", torch.tensor(0).int())
        return self.graph.call_function(dequantize, (integers, scales, no_zero))

    def _bias(self, args: tuple[Any, ...]) -> Any:
        """A layer's bias as int32 on the grid of its sums where it lies on it; else as it is."""
        x, weight, bias = args
        if bias is None or x.target is not dequantize or weight.target is not dequantize:
            return bias
        steps = self._value(x.args[1]) * self._value(weight.args[1])
        values = self._value(bias)
        integers = (values.double() / steps.double()).round()
        on_grid = torch.allclose(integers * steps.double(), values.double(), rtol=1e-6, atol=0)
        if not on_grid or int(integers.abs().max()) >= 2**31:
            return bias  # the layer reads floats, or its weight alone is quantized
        name = str(bias.target)
        stored = (self._constant(f"{name}_integers", integers.to(torch.int32)),
                  self._constant(f"{name}_scale", steps), self._constant("no_zero", torch.tensor(0).int()))  # fmt: skip
        return self.graph.call_function(dequantize, stored)

    def _grid(self, name: str, scale: float, zero_point: int) -> tuple[fx.Node, fx.Node]:
        return (self._constant(f"{name}_step", torch.tensor(scale, dtype=torch.float32)),
                self._constant(f"{name}_zero", torch.tensor(zero_point, dtype=torch.int32)))  # fmt: skip

    def _constant(self, name: str, tensor: Tensor) -> fx.Node:
        name = name.replace(".", "_")
        self.tensors[name] = tensor.detach()
        return self.graph.create_node("get_attr", name)

    def _value(self, node: Any) -> Tensor:
        return self.tensors[str(node.target)]

    def _source(self, node: fx.Node) -> fx.Node:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source

    def _name(self, node: fx.Node) -> str:
        """The name of a layer, from that of its weight."""
        weight: Any = node.args[1]
        stored = weight.args[0] if weight.op == "call_function" else weight
        buffer: str = self.program.graph_signature.inputs_to_buffers[stored.name]
        return buffer.rstrip("_").removesuffix("_weight")
