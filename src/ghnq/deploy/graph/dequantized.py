"""The float32 network of a quantized file: its dequantized weights, and nothing rounded on the way.

A file does not hold a ReLU that the grid behind it makes redundant. Where a grid begins at 0 and what lies on it could
be negative, the ReLU comes back; where such a grid ends at 6 (within half a step), it is a ReLU6. Other clips that a
grid made redundant are not known any more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ghnq.deploy.graph.capture import module_of
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.supported_ops import aten, clip_limits

_MOVES = (aten.max_pool2d.default, aten.avg_pool2d.default, aten.mean.dim, aten.reshape.default, aten.permute.default,
          aten.slice.Tensor)  # fmt: skip
_JOINS = (aten.add.Tensor, aten.mul.Tensor, aten.cat.default)


def in_floats(simulation: fx.GraphModule) -> fx.GraphModule:
    """Returns the float32 counterpart of a simulation, which stays as it is."""
    return _Builder(simulation).build()


class _Builder:
    def __init__(self, simulation: fx.GraphModule) -> None:
        self.old = simulation
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[fx.Node, fx.Node] = {}
        self.positive: set[fx.Node] = set()
        """New nodes without negative values."""

    def build(self) -> fx.GraphModule:
        for node in self.old.graph.nodes:
            if node.op == "placeholder":
                self._keep(node, self.graph.placeholder(str(node.target)))
            elif node.op == "output":
                self.graph.output(self.values[node.args[0]])
            elif node.op == "call_function" and not holds_integers(node):
                self._call(node)
        return module_of(self.graph, self.tensors)

    def _call(self, node: fx.Node) -> None:
        if node.target is dequantize:
            source: Any = node.args[0]
            if source.op == "get_attr":
                values = dequantize(*(self._old_tensor(arg) for arg in node.args))
                self._keep(node, self._tensor(str(source.target), values))
            else:
                self.values[node] = self._unrounded(rounding(source))
            return
        assert callable(node.target)
        call = self.graph.call_function(node.target, fx.map_arg(node.args, self._value))
        self._keep(node, call)
        if self._never_negative(call):
            self.positive.add(call)

    def _unrounded(self, rounded: fx.Node) -> fx.Node:
        """What was rounded, with the clip that the grid stands for."""
        x, scale, zero_point = (arg for arg in rounded.args[:3] if isinstance(arg, fx.Node))
        value = self.values[x]
        if int(self._old_tensor(zero_point)) != 0 or value in self.positive or value.op == "placeholder":
            return value
        step = self._old_tensor(scale).item()
        six = abs(step * largest(rounded) - 6) <= step / 2
        clip = self.graph.call_function(aten.clamp.default, (value, 0.0, 6.0)) if six else (
            self.graph.call_function(aten.relu.default, (value,))
        )  # fmt: skip
        self.positive.add(clip)
        return self._like(rounded, clip)

    def _never_negative(self, call: fx.Node) -> bool:
        if call.target in (aten.relu.default, aten.clamp.default):
            low = clip_limits(call)[0]
            return low is not None and low >= 0
        if call.target in (aten.sigmoid.default, aten.hardsigmoid.default, aten.softmax.int):
            return True
        if call.target in _MOVES:
            return call.args[0] in self.positive
        return call.target in _JOINS and all(source in self.positive for source in call.all_input_nodes)

    def _keep(self, old: fx.Node, new: fx.Node) -> None:
        self.values[old] = self._like(old, new)

    def _like(self, old: fx.Node, new: fx.Node) -> fx.Node:
        new.meta.update({key: old.meta[key] for key in ("where", "layer") if key in old.meta})
        if "val" in old.meta:
            new.meta["val"] = old.meta["val"].to(torch.float32)
        return new

    def _value(self, node: fx.Node) -> fx.Node:
        if node.op == "get_attr":
            return self._tensor(str(node.target), self._old_tensor(node))
        return self.values[node]

    def _tensor(self, name: str, tensor: Tensor) -> fx.Node:
        self.tensors[name] = tensor.detach()
        node = self.graph.create_node("get_attr", name)
        node.meta["val"] = tensor.detach()
        return node

    def _old_tensor(self, node: Any) -> Tensor:
        tensor: Tensor = getattr(self.old, str(node.target))
        return tensor


def holds_integers(node: fx.Node) -> bool:
    """Whether a node is a `quantize`, or the clip behind it that stands for a grid of fewer bits."""
    if node.target is quantize:
        return True
    return node.target is aten.clamp.default and isinstance(node.args[0], fx.Node) and node.args[0].target is quantize


def rounding(integers: fx.Node) -> fx.Node:
    """The `quantize` that made integers."""
    source = integers if integers.target is quantize else integers.args[0]
    assert isinstance(source, fx.Node)
    return source


def largest(rounded: fx.Node) -> int:
    """The largest integer of the grid that a `quantize` rounds to, also where the clip behind it ends it earlier."""
    clips = [user.args[2] for user in rounded.users if user.target is aten.clamp.default]
    return int(min([rounded.args[4], *clips]))  # type: ignore[type-var, arg-type]
