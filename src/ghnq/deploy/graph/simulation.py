"""The simulation of a deployed network: its graph with quantize and dequantize nodes, computed in float.

Every file that is written has this graph, node by node, and `verify` rebuilds it from the file.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from ghnq.deploy.graph.capture import capture
from ghnq.deploy.graph.grid import Grid
from ghnq.deploy.graph.placement import Placement, place_quantizers
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.rewriter import GraphRewriter, node_argument
from ghnq.deploy.graph.supported_ops import weight_axis
from ghnq.quant import Prepared, QuantScheme
from ghnq.quant.quantized_layers import QuantLayer


@torch.no_grad()
def simulate(prepared: Prepared, scheme: QuantScheme | str, *, protocol: str = "deploy") -> fx.GraphModule:
    """Returns the simulation of a prepared network under a scheme, with integer placement; images in, logits out.

    Weights, biases and the grids of layer inputs are those of `prepared.quantize(scheme)`.

    Raises:
        SchemeError: As `Prepared.quantize`, and where no integer kernel supports the scheme.
        ExportError: The network cannot be captured.
    """
    scheme = QuantScheme.parse(scheme, protocol=protocol)
    network = prepared.quantize(scheme)
    graph = capture(network, prepared.images)
    placement = place_quantizers(graph, network, prepared.images, prepared.batch_size, scheme.activation_range)
    return _QuantizerInsertion(graph, placement).rewrite(type(network).__name__)


class _QuantizerInsertion(GraphRewriter):
    """Inserts the quantizers of a placement into a graph, and the integers of quantized layers."""

    def __init__(self, module: nn.Module, placement: Placement) -> None:
        super().__init__(module)
        self.placement = placement
        self.requantized: dict[tuple[fx.Node, float, int, int], fx.Node] = {}
        """Tensors quantized a second time, by source, scale, zero point and bits."""

    def run_node(self, n: fx.Node) -> fx.Node | Tensor | None:
        """Returns the value of a node, quantized if its tensor is stored on a grid."""
        value = super().run_node(n)
        grid = self.placement.grids.get(n)
        if grid is None:
            return value
        assert isinstance(value, fx.Node)
        return self._quantize_dequantize(value, grid, n.name)

    def call_node(self, node: fx.Node) -> fx.Node | None:
        """Returns the value of a call; redundant clips are left out, quantized layers get integers."""
        if node in self.placement.dropped:
            return self.value(node_argument(node))
        layer = self.placement.layers.get(node)
        if layer is None:
            return super().call_node(node)
        source = self._layer_input(node, layer)
        weight, bias = self._weight_and_bias(node, layer)
        return self.new.call(node.target, source, weight, bias, *node.args[3:], like=node)

    def _layer_input(self, node: fx.Node, layer: QuantLayer) -> fx.Node:
        """Returns the input of a layer: the stored tensor, or that tensor quantized again to the layer's own grid."""
        source = node_argument(node)
        stored = self.placement.grids.get(source)
        if layer.bits.activation is None:
            return self.value(source)
        grid = Grid.of_input(layer)
        if stored is not None and stored.equals(grid):
            return self.value(source)
        key = source, grid.scale.item(), int(grid.zero_point), grid.bits
        if key not in self.requantized:
            name = f"{node.meta['layer']}_input"
            self.requantized[key] = self._quantize_dequantize(self.value(source), grid, name)
        return self.requantized[key]

    def _quantize_dequantize(self, value: fx.Node, grid: Grid, name: str) -> fx.Node:
        scale = self.new.constant(f"{name}_scale", grid.scale)
        zero_point = self.new.constant(f"{name}_zero", grid.zero_point)
        integers = self.new.call(quantize, value, scale, zero_point, 0, grid.largest)
        return self.new.call(dequantize, integers, scale, zero_point, like=value)

    def _weight_and_bias(self, node: fx.Node, layer: QuantLayer) -> tuple[fx.Node, fx.Node | None]:
        """Returns weight and bias, dequantized from integers; the bias of a layer with float input stays in float."""
        name = node.meta["layer"]
        dtype = torch.int8 if layer.scheme.weight_symmetric else torch.uint8
        weight = self._dequantized(f"{name}_weight", layer.weight_int.to(dtype), layer.weight_scale,
                                   layer.weight_zero_point, *weight_axis(node))  # fmt: skip
        weight.meta["bits"] = layer.bits.weight
        if layer.bias is None:
            return weight, None
        if layer.bias_int is None:
            return weight, self.new.constant(f"{name}_bias", layer.bias)
        assert layer.input_scale is not None
        scale = layer.input_scale * layer.output_scale
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return weight, self._dequantized(f"{name}_bias", layer.bias_int, scale, zero_point)

    def _dequantized(self, name: str, integers: Tensor, scale: Tensor, zero_point: Tensor, *axis: int) -> fx.Node:
        return self.new.call(
            dequantize,
            self.new.constant(name, integers),
            self.new.constant(f"{name}_scale", scale),
            self.new.constant(f"{name}_zero", zero_point),
            *axis,
        )
