"""From the simulation's graph to a torch.export program in the words of torchao's pt2e quantization.

The same graph, with `quantized_decomposed` functions for ours; scales and zero points of activations are numbers in it.
Two things differ from what `convert_pt2e` writes, each for a reason found with torchao 0.18 and torch 2.13:

- activations of fewer than 8 bits are clipped to their grid's limits before they are quantized: the fused kernels of
  x86 ignore `quant_max` and would go up to 255;
- tensors are made contiguous before a reshape: the x86 lowering turns it into a view, but its convolutions give
  channels-last tensors.

A bias is a float, as torchao has it, that lies on the grid of its int32 value, s_in * s_w.

Legend: O output channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import Dim, ExportedProgram

from ghnq.deploy.graph.capture import module_of
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.supported_ops import aten
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.errors import SchemeError
from ghnq.optional_imports import quiet
from ghnq.quant.affine import integer_range

LARGEST_BATCH = 2**20


def to_program(simulation: fx.GraphModule, input_shape: tuple[int, ...]) -> ExportedProgram:
    """Returns the program of a simulation for images [B, C, H, W] of `input_shape` (C, H, W) and any B.

    Raises SchemeError for weights whose channels have different zero points.
    """
    module = _Writer(simulation).write()
    example = torch.zeros(2, *input_shape)  # it is stored in the file: no image of the user's
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    with quiet(), torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=({0: batch},), strict=False)


class _Writer:
    """The graph under construction; `at` maps nodes of the simulation to ours, `grids` quantized ones to theirs."""

    def __init__(self, simulation: fx.GraphModule) -> None:
        self.simulation, self.words = simulation, quantized_decomposed()
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.at: dict[fx.Node, fx.Node] = {}
        self.grids: dict[fx.Node, tuple[Any, ...]] = {}

    def write(self) -> fx.GraphModule:
        for node in self.simulation.graph.nodes:
            if node.op == "placeholder":
                self.at[node] = self.graph.placeholder(str(node.target))
            elif node.op == "output":
                self.graph.output(self._value(node.args[0]))
            elif node.target is quantize:
                self.at[node] = self._quantize(node)
            elif node.op == "call_function" and node.target is not dequantize:
                self.at[node] = self._call(node)
        return module_of(self.graph, self.tensors)

    def _call(self, node: fx.Node) -> fx.Node:
        args: Any = fx.map_arg(node.args, self._value)
        assert callable(node.target)
        if node.target is aten.reshape.default:
            options: dict[str, Any] = {"memory_format": torch.contiguous_format}
            args = self.graph.call_function(aten.clone.default, args[:1], options), *args[1:]
        return self.graph.call_function(node.target, args)

    def _value(self, node: fx.Node) -> fx.Node:
        """What a function reads; each reader gets a dequantization of its own, as fusion asks for."""
        if node.op == "get_attr":
            return self._constant(node, self._tensor(node))
        if node.target is not dequantize:
            return self.at[node]
        integers: Any = node.args[0]
        if integers.op == "get_attr":
            return self._weight(node)
        return self.graph.call_function(
            self.words.dequantize_per_tensor.default, (self.at[integers], *self.grids[integers])
        )

    def _quantize(self, node: fx.Node) -> fx.Node:
        x, scale, zero_point, _, largest = node.args
        step, zero = self._tensor(scale).item(), int(self._tensor(zero_point))
        self.grids[node] = step, zero, 0, largest, torch.uint8
        assert isinstance(x, fx.Node)
        value = self._value(x)
        if largest != 255:
            value = self.graph.call_function(aten.clamp.default, (value, *clip_of(*self.grids[node][:4])))
        return self.graph.call_function(self.words.quantize_per_tensor.default, (value, *self.grids[node]))

    def _weight(self, node: fx.Node) -> fx.Node:
        """The dequantization of a weight, or the float values of a bias."""
        integers, scales, zeros = (self._tensor(arg) for arg in node.args)
        name: Any = node.args[0]
        if integers.dtype == torch.int32:
            return self._constant(name, (integers.double() * scales.double()).float())
        bits = node.meta.get("bits", 8)
        if integers.dtype == torch.int8:
            channels = len(integers)
            args = (self._constant(node.args[1], scales.expand(channels).contiguous()),
                    self._constant(node.args[2], torch.zeros(channels, dtype=torch.int64)),
                    0, *integer_range(bits, True), torch.int8)  # fmt: skip
            return self.graph.call_function(
                self.words.dequantize_per_channel.default, (self._constant(name, integers), *args)
            )
        if scales.numel() > 1:
            raise SchemeError(
                f"{name.target}: its channels have zero points of their own, which integer kernels do not take; "
                "use symmetric weights, or asymmetric ones per tensor"
            )
        grid = scales.item(), int(zeros), *integer_range(bits, False), torch.uint8
        return self.graph.call_function(
            self.words.dequantize_per_tensor.default, (self._constant(name, integers), *grid)
        )

    def _constant(self, node: Any, tensor: Tensor) -> fx.Node:
        """A tensor under the name it has in the simulation, or one made from it."""
        name = str(node.target)
        while name in self.tensors and not (
            self.tensors[name].dtype == tensor.dtype and torch.equal(self.tensors[name], tensor)
        ):
            name += "_"
        self.tensors[name] = tensor
        return self.graph.create_node("get_attr", name)

    def _tensor(self, node: Any) -> Tensor:
        value: Tensor = getattr(self.simulation, str(node.target))
        return value.detach().cpu().contiguous()


def clip_of(scale: float, zero_point: int, smallest: int, largest: int) -> tuple[float, float]:
    """The real values at both ends of a grid."""
    return (smallest - zero_point) * scale, (largest - zero_point) * scale
