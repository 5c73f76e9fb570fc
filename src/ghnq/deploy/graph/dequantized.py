"""The float32 network of a quantized file: its dequantized weights, and no quantizers.

A file does not hold a ReLU that the grid behind it makes redundant. Where a grid begins at 0 and its values could be
negative, the ReLU is restored; where such a grid ends at 6 (within half a step), it is a ReLU6. Other clips that a
grid made redundant cannot be restored.
"""

from __future__ import annotations

from torch import fx

from ghnq.deploy.graph.quantize_ops import dequantize, is_quantized, largest_integer, quantize_node
from ghnq.deploy.graph.rewriter import GraphRewriter, constant_argument, node_argument
from ghnq.deploy.graph.supported_ops import aten, clip_limits

_KEEP_SIGN = (aten.max_pool2d.default, aten.reflection_pad2d.default, aten.replication_pad2d.default,
              aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec,
              aten.avg_pool2d.default, aten.mean.dim, aten.reshape.default,
              aten.permute.default, aten.slice.Tensor)  # fmt: skip
_COMBINE = (aten.add.Tensor, aten.mul.Tensor, aten.cat.default)


def in_floats(simulation: fx.GraphModule) -> fx.GraphModule:
    """Returns the float32 counterpart of a simulation, which is not changed."""
    return _QuantizerRemoval(simulation).rewrite()


class _QuantizerRemoval(GraphRewriter):
    """Removes the quantizers of a graph; `nonnegative` are the new nodes whose values are known to be 0 or more."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.nonnegative: set[fx.Node] = set()

    def call_node(self, node: fx.Node) -> fx.Node | None:
        """Returns the value of a call; what a quantizer gives is what it reads, with the clip that its grid implies."""
        if is_quantized(node):
            return None
        if node.target is dequantize:
            return self._dequantize(node)
        call = super().call_node(node)
        assert call is not None
        if self._is_nonnegative(call):
            self.nonnegative.add(call)
        return call

    def _dequantize(self, node: fx.Node) -> fx.Node:
        source = node_argument(node)
        if source.op == "get_attr":
            integers, scale, zero_point = (constant_argument(self.module, node, i) for i in range(3))
            values = dequantize(integers, scale, zero_point, *node.args[3:])  # type: ignore[arg-type]
            return self.new.copy_meta(node, self.new.constant(str(source.target), values))
        quantizer = quantize_node(source)
        value = self.value(node_argument(quantizer))
        zero_point = constant_argument(self.module, quantizer, 2)
        if int(zero_point) != 0 or value in self.nonnegative or value.op == "placeholder":
            return value
        step = constant_argument(self.module, quantizer, 1).item()
        ends_at_six = abs(step * largest_integer(quantizer) - 6) <= step / 2
        clip = (
            self.new.call(aten.clamp.default, value, 0.0, 6.0, like=node)
            if ends_at_six
            else self.new.call(aten.relu.default, value, like=node)
        )
        self.nonnegative.add(clip)
        return clip

    def _is_nonnegative(self, call: fx.Node) -> bool:
        if call.target in (aten.relu.default, aten.clamp.default):
            low = clip_limits(call)[0]
            return low is not None and low >= 0
        if call.target in (aten.sigmoid.default, aten.hardsigmoid.default, aten.softmax.int):
            return True
        if call.target in _KEEP_SIGN:
            return node_argument(call) in self.nonnegative
        return call.target in _COMBINE and all(source in self.nonnegative for source in call.all_input_nodes)
