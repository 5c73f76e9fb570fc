"""From a program that this package wrote back to the simulation, with the arithmetic of `ghnq.quant`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.fx.node import Argument, Target

from ghnq.deploy.graph.decomposer import full_arguments
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.rewriter import GraphRewriter, node_argument
from ghnq.deploy.graph.supported_ops import KINDS, LAYERS, aten
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.deploy.pt2e.tensor_names import layer_name, nested_name
from ghnq.deploy.pt2e.writer import grid_limits
from ghnq.errors import ExportError


def read_program(program: ExportedProgram, origin: str) -> fx.GraphModule:
    """Returns the simulation that a program expresses; images [B, C, H, W] in, logits [B, K] out.

    Raises:
        ExportError: A node is not as this package writes it; the message names the first.
    """
    return _Reader(program, origin).rewrite()


class _Reader(GraphRewriter):
    """Replaces the operators of pt2e quantization by `quantize` and `dequantize`."""

    def __init__(self, program: ExportedProgram, origin: str) -> None:
        super().__init__(program.graph_module)
        self.program, self.origin = program, origin
        self.buffers: dict[str, str] = program.graph_signature.inputs_to_buffers
        operators = quantized_decomposed()
        self.readers: dict[Target, Callable[[fx.Node], fx.Node]] = {
            operators.quantize_per_tensor.default: self._quantize,
            operators.dequantize_per_tensor.default: self._dequantize,
            operators.dequantize_per_channel.default: self._dequantize_channels,
            aten.clone.default: lambda node: self.value(node_argument(node)),
        }

    def run_node(self, n: fx.Node) -> fx.Node | Tensor | None:
        """Returns the value of a node.

        Raises:
            ExportError: The node is not as this package writes it.
        """
        try:
            return super().run_node(n)
        except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ExportError(f"'{self.origin}': node '{n.name}' is not as ghnq writes it: {error!r}") from error

    def placeholder_node(self, node: fx.Node) -> fx.Node:
        """Returns the input for the images, a constant for a buffer."""
        buffer = self.buffers.get(node.name)
        if buffer is None:
            return self.new.graph.placeholder("images")
        return self.new.constant(nested_name(buffer) or buffer, self.program.state_dict[buffer])

    def call_node(self, node: fx.Node) -> fx.Node | None:
        """Returns the value of a call."""
        if node.target in self.readers:
            return self.readers[node.target](node)
        if node.target in LAYERS:
            return self._layer(node)
        if node.target not in KINDS:
            raise ExportError(f"'{self.origin}': node '{node.name}' is a {node.target}, which ghnq does not write")
        return self.new.call(node.target, *self.values(node.args), kwargs=fx.map_arg(node.kwargs, self.value))

    def output_node(self, node: fx.Node) -> fx.Node:
        """Adds the output and removes what it does not depend on."""
        output: fx.Node = self.new.graph.output(self.value(node.all_input_nodes[0]))
        self.new.graph.eliminate_dead_code()
        return output

    def _layer(self, node: fx.Node) -> fx.Node:
        x, weight, bias, *options = self.values(tuple(full_arguments(node)))
        assert isinstance(x, fx.Node)
        assert isinstance(weight, fx.Node)
        if isinstance(bias, fx.Node):
            bias = self._bias(x, weight, bias)
        layer = self.new.call(node.target, x, weight, bias, *options)
        layer.meta["layer"] = self._layer_name(node)
        return layer

    def _quantize(self, node: fx.Node) -> fx.Node:
        scale, zero_point, smallest, largest, dtype = node.args[1:]
        if not (isinstance(scale, float) and isinstance(zero_point, int) and isinstance(largest, int)):
            raise TypeError("a grid that is not made of numbers")
        x = node_argument(node)
        grid = self._grid(node.name, scale, zero_point)
        if smallest != 0 or dtype is not torch.uint8:
            raise ValueError(f"integers of {dtype} from {smallest}")
        if largest != 255:
            limits = grid_limits(scale, zero_point, 0, largest)
            if x.target is not aten.clamp.default or x.args[1:] != limits:
                raise ValueError("fewer than 8 bits without the clip to their grid")
            x = node_argument(x)
        return self.new.call(quantize, self.value(x), *grid, 0, largest)

    def _dequantize(self, node: fx.Node) -> fx.Node:
        _, scale, zero_point, *_ = node.args
        integers = self.value(node_argument(node))
        if integers.target is not quantize:
            return self.new.call(dequantize, integers, *self._grid(node.name, scale, zero_point))
        grid = [node_argument(integers, 1), node_argument(integers, 2)]
        if (self.new.tensor(grid[0]).item(), int(self.new.tensor(grid[1]))) != (scale, zero_point):
            raise ValueError("dequantized with another grid than it was quantized to")
        return self.new.call(dequantize, integers, *grid)

    def _dequantize_channels(self, node: fx.Node) -> fx.Node:
        integers, scales, zero_points = (self.value(node_argument(node, i)) for i in range(3))
        axis = node.args[3]
        if bool(self.new.tensor(zero_points).any()) or axis not in (0, 1):
            raise ValueError("channels with zero points, or not the output channels")
        return self.new.call(dequantize, integers, scales, self._zero(), *([axis] if axis else []))

    def _bias(self, x: fx.Node, weight: fx.Node, bias: fx.Node) -> fx.Node:
        """Returns a layer's bias as int32 on the grid of its sums if its values are on it; else the float bias."""
        if x.target is not dequantize or weight.target is not dequantize:
            return bias
        steps = self.new.tensor(node_argument(x, 1)) * self.new.tensor(node_argument(weight, 1))
        values = self.new.tensor(bias)
        if steps.dim():
            steps = steps.repeat(len(values) // len(steps))  # groups of a transposed convolution share scales
        integers = (values.double() / steps.double()).round()
        on_grid = torch.allclose(integers * steps.double(), values.double(), rtol=1e-6, atol=0)
        if not on_grid or int(integers.abs().max()) >= 2**31:
            return bias  # the layer reads floats, or only its weight is quantized
        name = str(bias.target)
        stored = self.new.constant(f"{name}_integers", integers.to(torch.int32))
        return self.new.call(dequantize, stored, self.new.constant(f"{name}_scale", steps), self._zero())

    def _grid(self, name: str, scale: Argument, zero_point: Argument) -> tuple[fx.Node, fx.Node]:
        return (
            self.new.constant(f"{name}_step", torch.tensor(scale, dtype=torch.float32)),
            self.new.constant(f"{name}_zero", torch.tensor(zero_point, dtype=torch.int32)),
        )

    def _zero(self) -> fx.Node:
        return self.new.constant("no_zero", torch.tensor(0).int())

    def _layer_name(self, node: fx.Node) -> str:
        """Returns the name of a layer, from that of its weight."""
        weight = node_argument(node, 1)
        stored = node_argument(weight) if weight.op == "call_function" else weight
        return layer_name(self.buffers[stored.name])
