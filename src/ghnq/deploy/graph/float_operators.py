"""Which operators of a quantized network are computed in float."""

from __future__ import annotations

from collections import Counter

from torch import fx

from ghnq.deploy.graph.quantize_ops import quantize
from ghnq.deploy.graph.supported_ops import KINDS, aten

_LAYERS_IN_FLOAT = (aten.conv_transpose2d.input,)
"""Layers without an integer kernel in the runtimes used here."""


def float_operators(simulation: fx.GraphModule) -> dict[str, int]:
    """Returns how many nodes of a simulated network have no integer kernel, by the name of the ATen operator.

    Their inputs are dequantized and their results quantized again. Layers that a scheme leaves in float are not
    counted, and nothing is where no activation is quantized.
    """
    if not any(node.target is quantize for node in simulation.graph.nodes):
        return {}
    found = Counter(
        name
        for node in simulation.graph.nodes
        if node.op == "call_function"
        and (KINDS.get(node.target) == "float" or node.target in _LAYERS_IN_FLOAT)
        and (name := str(node.target).split(".")[1])
    )
    return dict(sorted(found.items()))


def describe_float_operators(operators: dict[str, int]) -> str:
    """Returns a line for people, without a full stop."""
    listed = ", ".join(f"{count} {name}" for name, count in operators.items())
    return f"in float, between a dequantization and a quantization: {listed}"
