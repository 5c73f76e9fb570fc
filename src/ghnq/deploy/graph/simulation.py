"""The simulation of a deployed network: its graph with quantize and dequantize nodes, in float arithmetic.

This graph is what the ONNX file says, node by node, and what `verify` reads back from the file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from ghnq.deploy.graph.capture import capture, module_of
from ghnq.deploy.graph.grid import Grid
from ghnq.deploy.graph.placement import Placement, place
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.quant import Prepared, QuantScheme
from ghnq.quant.quantized_layers import QuantLayer


@torch.no_grad()
def simulate(prepared: Prepared, scheme: QuantScheme | str, *, protocol: str = "deploy") -> fx.GraphModule:
    """Returns the simulation of a prepared network under a scheme, with integer placement; images in, logits out.

    Weights, biases and the grids of layer inputs are those of `prepared.quantize(scheme)`.

    Raises:
        SchemeError: as `Prepared.quantize`, and where no integer kernel can do it.
        ExportError: the network cannot be captured.
    """
    scheme = QuantScheme.parse(scheme, protocol=protocol)
    network = prepared.quantize(scheme)
    graph = capture(network, prepared.images)
    placement = place(graph, network, prepared.images, prepared.batch_size, scheme.activation_range)
    return _Builder(graph, placement).build(network)


class _Builder:
    """Writes a graph anew with the placement's grids in it."""

    def __init__(self, graph: fx.GraphModule, placement: Placement) -> None:
        self.old, self.placement = graph, placement
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[fx.Node, fx.Node] = {}
        self.again: dict[tuple[fx.Node, float, int, int], fx.Node] = {}

    def build(self, network: nn.Module) -> fx.GraphModule:
        for node in self.old.graph.nodes:
            if node.op == "placeholder":
                self._store(node, self._add(self.graph.placeholder(str(node.target)), node))
            elif node.op == "output":
                self._add(self.graph.output(self.values[node.args[0]]), node)
            elif node.op == "call_function":
                self._call(node)
        return module_of(self.graph, self.tensors, network)

    def _call(self, node: fx.Node) -> None:
        if node in self.placement.dropped:
            assert isinstance(node.args[0], fx.Node)
            self._store(node, self.values[node.args[0]])
            return
        layer = self.placement.layers.get(node)
        args: Any = node.args
        if layer is None:
            args = fx.map_arg(args, self._value)
        else:
            args = (self._input(node, layer), *self._weights(node, layer), *args[3:])
        assert callable(node.target)
        self._store(node, self._add(self.graph.call_function(node.target, args), node))

    def _store(self, node: fx.Node, value: fx.Node) -> None:
        grid = self.placement.grids.get(node)
        self.values[node] = value if grid is None else self._round(value, grid, node.name)

    def _input(self, node: fx.Node, layer: QuantLayer) -> fx.Node:
        """What a layer reads: the stored tensor, or that tensor rounded once more to the layer's own grid."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        stored = self.placement.grids.get(source)
        if layer.bits.activation is None:
            return self.values[source]
        grid = Grid.of_input(layer)
        if stored is not None and stored.equals(grid):
            return self.values[source]
        key = source, grid.scale.item(), int(grid.zero_point), grid.bits
        if key not in self.again:
            self.again[key] = self._round(self.values[source], grid, f"{node.meta['layer']}_input")
        return self.again[key]

    def _round(self, value: fx.Node, grid: Grid, name: str) -> fx.Node:
        scale, zero = self._tensor(f"{name}_scale", grid.scale), self._tensor(f"{name}_zero", grid.zero_point)
        integers = self.graph.call_function(quantize, (value, scale, zero, 0, grid.largest))
        return self._add(self.graph.call_function(dequantize, (integers, scale, zero)), value, name)

    def _weights(self, node: fx.Node, layer: QuantLayer) -> tuple[fx.Node, fx.Node | None]:
        """Weight and bias as integers on their scales; the bias of a layer with float input stays in float."""
        name = node.meta["layer"]
        narrow = torch.int8 if layer.scheme.weight_symmetric else torch.uint8
        weight = self._integers(f"{name}_weight", layer.weight_int.to(narrow), layer.weight_scale,
                                layer.weight_zero_point)  # fmt: skip
        weight.meta["bits"] = layer.bits.weight
        if layer.bias is None:
            return weight, None
        if layer.bias_int is None:
            return weight, self._tensor(f"{name}_bias", layer.bias)
        assert layer.input_scale is not None
        scale = layer.input_scale * layer.weight_scale
        return weight, self._integers(f"{name}_bias", layer.bias_int, scale, torch.zeros_like(scale, dtype=torch.int32))

    def _integers(self, name: str, integers: Tensor, scale: Tensor, zero_point: Tensor) -> fx.Node:
        args = (self._tensor(name, integers), self._tensor(f"{name}_scale", scale),
                self._tensor(f"{name}_zero", zero_point))  # fmt: skip
        return self.graph.call_function(dequantize, args)

    def _value(self, node: fx.Node) -> fx.Node:
        if node.op == "get_attr":
            return self._tensor(str(node.target), getattr(self.old, str(node.target)))
        return self.values[node]

    def _tensor(self, name: str, tensor: Tensor) -> fx.Node:
        name = name.replace(".", "_")
        while name in self.tensors and not _identical(self.tensors[name], tensor):
            name += "_"
        self.tensors[name] = tensor.detach()
        node = self.graph.create_node("get_attr", name)
        node.meta["val"] = tensor.detach()
        return node

    def _add(self, node: fx.Node, like: fx.Node, name: str | None = None) -> fx.Node:
        node.meta.update({key: like.meta[key] for key in ("val", "where", "layer") if key in like.meta})
        return node


def _identical(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
