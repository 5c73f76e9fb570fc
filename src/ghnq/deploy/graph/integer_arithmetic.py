"""The simulation as a device computes it: products summed in integers.

A float convolution rounds each of its sums, in an order that the kernel chooses; where a sum is close to the middle
between two steps, that decides the step, and a deep network amplifies the difference. Here the sums are exact, and one
multiplication in float32 brings them to the output's grid (Jacob et al. 2018, 1712.05877, Eq. 7; ONNX Runtime
multiplies in the same way):

    acc = sum (q_x - z_x) (q_w - z_w) + q_bias        q_y = clamp(round(acc * (s_x s_w / s_y)) + z_y)

Legend: B images, O output channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.fx.node import Argument

from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.rewriter import GraphRewriter, constant_argument, node_argument
from ghnq.deploy.graph.supported_ops import LAYERS, layer_groups, weight_axis
from ghnq.quant.affine import along_channels

_EXACT_LIMIT = 2**24
"""Integers below this are exact in float32, and so are their sums."""


def in_integers(simulation: fx.GraphModule) -> fx.GraphModule:
    """Returns a simulation in which each layer with integer weight and input sums exactly; the given one is kept."""
    return _IntegerSums(simulation).rewrite()


def accumulate(
    q: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    function: Callable[..., Tensor],
    options: tuple[Argument, ...],
) -> Tensor:
    """Returns exact sums of products, integers in the float type of `weight` ([O, ...], zero points subtracted)."""
    total = function((q - zero_point).to(weight.dtype), weight, None, *options)
    if bias is None:
        return total
    return total.double() + bias.double().view(-1, *[1] * (total.dim() - 2))


def requantize(total: Tensor, factor: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """Returns the integers of the next tensor, int32, of sums [B, O, ...].

    The factor s_x * s_w / s_y is float32, [] or [O].
    """
    steps = (total.float() * _along_second(factor, total)).round_()
    return steps.add_(zero_point).clamp_(smallest, largest).to(torch.int32)


def rescale(total: Tensor, scale: Tensor) -> Tensor:
    """Returns the real values, float32, of sums [B, O, ...] at the scale s_x * s_w, [] or [O]."""
    return total.float() * _along_second(scale, total)


def _along_second(values: Tensor, x: Tensor) -> Tensor:
    """Reshapes [O] to broadcast along the second dimension of x."""
    return values if values.dim() == 0 else values.view(-1, *[1] * (x.dim() - 2))


class _IntegerSums(GraphRewriter):
    """Computes quantized layers in integers, and the quantization behind one by one multiplication.

    Attributes:
        sums: For each such layer, the node of its sums and their scale.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.sums: dict[fx.Node, tuple[fx.Node, Tensor]] = {}

    def call_node(self, node: fx.Node) -> fx.Node | None:
        """Returns the value of a call."""
        if node.target in LAYERS and _is_quantized_layer(node):
            return self._layer(node)
        source = node.args[0]
        if node.target is quantize and source in self.sums:
            total, scale = self.sums[node_argument(node)]
            factor = self.new.constant(f"{node.name}_factor", scale / constant_argument(self.module, node, 1))
            return self.new.call(requantize, total, factor, *self.values(node.args[2:]), like=node)
        return super().call_node(node)

    def output_node(self, node: fx.Node) -> fx.Node:
        """Adds the output and removes what it does not depend on."""
        output = super().output_node(node)
        self.new.graph.eliminate_dead_code()
        return output

    def _layer(self, node: fx.Node) -> fx.Node:
        source, weight, bias = node_argument(node), node_argument(node, 1), node.args[2]
        integers, weight_scale, weight_zero = (constant_argument(self.module, weight, i) for i in range(3))
        input_zero = constant_argument(self.module, source, 2)
        (axis,) = weight_axis(node) or (0,)
        scale = constant_argument(self.module, source, 1) * weight_scale
        if scale.dim():
            scale = scale.repeat(layer_groups(node))
        values = integers.to(torch.int32).transpose(0, axis)
        values = values - along_channels(weight_zero, values)
        exact = values.transpose(0, axis).contiguous().to(_sum_dtype(values, input_zero))
        q, zero_point = self.values((node_argument(source), node_argument(source, 2)))
        total = self.new.call(
            accumulate,
            q,
            zero_point,
            self.new.constant(f"{node.name}_exact", exact),
            self.value(node_argument(bias)) if isinstance(bias, fx.Node) else None,
            node.target,  # type: ignore[arg-type]
            node.args[3:],
        )
        self.sums[node] = total, scale
        return self.new.call(rescale, total, self.new.constant(f"{node.name}_scale", scale), like=node)


def _is_quantized_layer(node: fx.Node) -> bool:
    x, weight, bias = node.args[:3]
    return all(isinstance(arg, fx.Node) and arg.target is dequantize for arg in (x, weight)) and (
        bias is None or (isinstance(bias, fx.Node) and bias.target is dequantize)
    )


def _sum_dtype(weight: Tensor, input_zero: Tensor) -> torch.dtype:
    """Returns float32 where no sum can exceed its exact integers, whatever the input is; else float64."""
    farthest = max(int(input_zero), 255 - int(input_zero))
    largest = int(weight.abs().flatten(1).sum(1).max()) * farthest
    return torch.float32 if largest < _EXACT_LIMIT else torch.float64
