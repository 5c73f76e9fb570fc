"""From the simulation's graph to a torch.export program with the operators of torchao's pt2e quantization.

The same graph, with functions of `quantized_decomposed` instead of `quantize` and `dequantize`; scales and zero points
of activations are numbers in it.
Two things differ from what `convert_pt2e` writes, each for a reason found with torchao 0.18 and torch 2.13:

- activations of fewer than 8 bits are clipped to their grid's limits before they are quantized: the fused kernels of
  x86 ignore `quant_max` and would go up to 255;
- tensors are made contiguous before a reshape: the x86 lowering turns it into a view, but its convolutions give
  channels-last tensors.

A bias is a float, as in torchao, on the grid of its int32 value, s_in * s_w.

Legend: O output channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.export import Dim, ExportedProgram

from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.rewriter import GraphRewriter, constant_argument, node_argument
from ghnq.deploy.graph.supported_ops import aten
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.deploy.pt2e.tensor_names import name_by_layer
from ghnq.errors import SchemeError
from ghnq.optional_imports import quiet
from ghnq.quant.affine import integer_range

LARGEST_BATCH = 2**20


def to_program(simulation: fx.GraphModule, input_shape: tuple[int, ...]) -> ExportedProgram:
    """Returns the program of a simulation for images [B, C, H, W] of `input_shape` (C, H, W) and any B.

    Raises:
        SchemeError: Weights whose channels have different zero points.
    """
    module = _Pt2eQuantizers(simulation).rewrite()
    example = torch.zeros(2, *input_shape)  # it is stored in the file: no image of the user's
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    with quiet(), torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=({0: batch},), strict=False)


class _Pt2eQuantizers(GraphRewriter):
    """Replaces `quantize` and `dequantize` by the operators of pt2e quantization.

    Attributes:
        grids: Scale, zero point, smallest and largest integer of each quantized tensor.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.operators = quantized_decomposed()
        self.grids: dict[fx.Node, tuple[float, int, int, int]] = {}

    def call_node(self, node: fx.Node) -> fx.Node | None:
        """Returns the value of a call; a dequantization has none, for each reader gets one of its own (`value`)."""
        if node.target is dequantize:
            return None
        if node.target is quantize:
            return self._quantize(node)
        if node.target is aten.reshape.default:
            options = {"memory_format": torch.contiguous_format}
            contiguous = self.new.call(aten.clone.default, self.value(node_argument(node)), kwargs=options)
            return self.new.call(node.target, contiguous, *node.args[1:])
        return self.new.call(node.target, *self.values(node.args), like=node)

    def output_node(self, node: fx.Node) -> fx.Node:
        """Adds the output, and names weights after their layers."""
        output = super().output_node(node)
        name_by_layer(self.new)
        return output

    def value(self, node: fx.Node) -> fx.Node:
        """Returns what a function reads; a dequantization of its own where that is quantized, as fusion requires."""
        if node.target is not dequantize:
            return super().value(node)
        integers = node_argument(node)
        if integers.op == "get_attr":
            return self._stored(node)
        function = self.operators.dequantize_per_tensor.default
        return self.new.call(function, self.value(integers), *self.grids[integers], torch.uint8)

    def _quantize(self, node: fx.Node) -> fx.Node:
        largest = node.args[4]
        assert isinstance(largest, int)
        scale = constant_argument(self.module, node, 1).item()
        grid = scale, int(constant_argument(self.module, node, 2)), 0, largest
        self.grids[node] = grid
        value = self.value(node_argument(node))
        if largest != 255:
            value = self.new.call(aten.clamp.default, value, *grid_limits(*grid))
        return self.new.call(self.operators.quantize_per_tensor.default, value, *grid, torch.uint8)

    def _stored(self, node: fx.Node) -> fx.Node:
        """Returns the dequantization of a weight, or the float values of a bias."""
        integers, scale = _stored_tensor(self.module, node, 0), _stored_tensor(self.module, node, 1)
        if integers.dtype == torch.int32:
            values = (integers.double() * scale.double()).float()
            return self.new.constant(str(node_argument(node).target), values)
        dequantize_weight = self._per_channel if integers.dtype == torch.int8 else self._per_tensor
        return dequantize_weight(node, integers, scale)

    def _per_channel(self, node: fx.Node, integers: Tensor, scale: Tensor) -> fx.Node:
        """Returns the dequantization of a symmetric weight with a scale [] or, along one dimension, [O]."""
        name, scale_name, zero_name = (str(node_argument(node, i).target) for i in range(3))
        axis = int(node.args[3]) if len(node.args) > 3 else 0  # type: ignore[arg-type]
        channels = integers.shape[axis]
        args = (
            self.new.constant(scale_name, scale.expand(channels).contiguous()),
            self.new.constant(zero_name, torch.zeros(channels, dtype=torch.int64)),
            axis,
            *integer_range(node.meta.get("bits", 8), True),
            torch.int8,
        )
        weight = self.new.constant(name, integers)
        return self.new.call(self.operators.dequantize_per_channel.default, weight, *args)

    def _per_tensor(self, node: fx.Node, integers: Tensor, scale: Tensor) -> fx.Node:
        """Returns the dequantization of an asymmetric weight with one scale and zero point."""
        name = str(node_argument(node).target)
        if scale.numel() > 1:
            raise SchemeError(
                f"{name}: its channels have different zero points, which integer kernels do not take; "
                "use symmetric weights, or asymmetric ones per tensor"
            )
        smallest, largest = integer_range(node.meta.get("bits", 8), False)
        grid = scale.item(), int(_stored_tensor(self.module, node, 2)), smallest, largest, torch.uint8
        weight = self.new.constant(name, integers)
        return self.new.call(self.operators.dequantize_per_tensor.default, weight, *grid)


def _stored_tensor(module: torch.nn.Module, node: fx.Node, index: int) -> Tensor:
    return constant_argument(module, node, index).detach().cpu().contiguous()


def grid_limits(scale: float, zero_point: int, smallest: int, largest: int) -> tuple[float, float]:
    """Returns the real values at both ends of a grid."""
    return (smallest - zero_point) * scale, (largest - zero_point) * scale
