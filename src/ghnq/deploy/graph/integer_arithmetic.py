"""The simulation bit for bit: products summed in integers, as a device sums them.

A float convolution rounds each of its sums, in an order of its own; where a sum lies next to the middle between two
steps, that decides the step, and a deep network carries it on. Here the sums are exact, and one multiplication in
float32 takes them to the output's grid (Jacob et al. 2018, 1712.05877, Eq. 7; ONNX Runtime multiplies in the same way):

    acc = sum (q_x - z_x) (q_w - z_w) + q_bias        q_y = clamp(round(acc * (s_x s_w / s_y)) + z_y)

Legend: O output channels.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.supported_ops import LAYERS
from ghnq.quant.affine import along_channels

_EXACT = 2**24
"""Integers below this are exact in float32, and so are their sums."""


def in_integers(simulation: fx.GraphModule) -> fx.GraphModule:
    """Returns a simulation in which every layer with integer weight and input sums exactly; the given one stays."""
    module = copy.deepcopy(simulation)
    graph = module.graph
    for node in list(graph.nodes):
        if node.target in LAYERS and _is_quantized(node):
            _rewrite(module, node)
    graph.eliminate_dead_code()
    module.recompile()
    return module


def accumulate(
    q: Tensor, zero_point: Tensor, weight: Tensor, bias: Tensor | None, function: Any, options: tuple[Any, ...]
) -> Tensor:
    """Exact sums of products, as integers in the float type of `weight` ([O, ...], zero points taken out)."""
    total: Tensor = function((q - zero_point).to(weight.dtype), weight, None, *options)
    if bias is None:
        return total
    return total.double() + bias.double().view(-1, *[1] * (total.dim() - 2))


def requantize(total: Tensor, factor: Tensor, zero_point: Tensor, smallest: int, largest: int) -> Tensor:
    """Integers of the next tensor, int32, from sums [B, O, ...]; the factor s_x * s_w / s_y is float32, [] or [O]."""
    steps = (total.float() * _second(factor, total)).round_()
    return steps.add_(zero_point).clamp_(smallest, largest).to(torch.int32)


def rescale(total: Tensor, scale: Tensor) -> Tensor:
    """Real values, float32, of sums [B, O, ...] at the scale s_x * s_w, [] or [O]."""
    return total.float() * _second(scale, total)


def _second(values: Tensor, x: Tensor) -> Tensor:
    """Reshapes [O] to go along the second dimension of x."""
    return values if values.dim() == 0 else values.view(-1, *[1] * (x.dim() - 2))


def _is_quantized(node: fx.Node) -> bool:
    x, weight, bias = node.args[:3]
    return all(isinstance(arg, fx.Node) and arg.target is dequantize for arg in (x, weight)) and (
        bias is None or (isinstance(bias, fx.Node) and bias.target is dequantize)
    )


def _rewrite(module: fx.GraphModule, node: fx.Node) -> None:
    """Replaces one layer by its sums, and the rounding behind it (or the values it gives) by one multiplication."""
    arguments: tuple[Any, ...] = node.args
    function: Any = node.target
    x, weight, bias = arguments[:3]
    q, input_scale, input_zero = x.args
    integers, weight_scale, weight_zero = (_value(module, arg) for arg in weight.args)
    scale = _value(module, input_scale) * weight_scale
    with module.graph.inserting_before(node):
        values = integers.to(torch.int32) - along_channels(weight_zero, integers)
        exact = values.to(_sum_type(values, _value(module, input_zero)))
        summed = module.graph.call_function(
            accumulate,
            (q, input_zero, _keep(module, f"{node.name}_exact", exact), None if bias is None else bias.args[0],
             function, arguments[3:]),
        )  # fmt: skip
        real = module.graph.call_function(rescale, (summed, _keep(module, f"{node.name}_scale", scale)))
    for user in list(node.users):
        if user.target is quantize:
            factor = scale / _value(module, user.args[1])
            with module.graph.inserting_before(user):
                args = summed, _keep(module, f"{user.name}_factor", factor), *user.args[2:]
                user.replace_all_uses_with(module.graph.call_function(requantize, args))
    node.replace_all_uses_with(real)


def _sum_type(weight: Tensor, input_zero: Tensor) -> torch.dtype:
    """float32 where no sum can leave its exact integers, whatever comes in; else float64."""
    farthest = max(int(input_zero), 255 - int(input_zero))
    largest = int(weight.abs().flatten(1).sum(1).max()) * farthest
    return torch.float32 if largest < _EXACT else torch.float64


def _value(module: fx.GraphModule, node: Any) -> Tensor:
    value: Tensor = getattr(module, str(node.target))
    return value


def _keep(module: fx.GraphModule, name: str, tensor: Tensor) -> fx.Node:
    while hasattr(module, name):
        name += "_"
    module.register_buffer(name, tensor)
    return module.graph.create_node("get_attr", name)
