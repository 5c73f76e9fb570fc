"""Nodes for parameters that a module uses directly, without a layer.

A matrix that multiplies is a linear layer; what is added is a bias or a position embedding. The others (the scale of a
residual branch, a class token, the slope of a PReLU, a kernel of a kind that no hypernetwork was trained on) become
`other` nodes, of which only the shape is embedded.
"""

from __future__ import annotations

from math import isqrt, prod

from ghnq.graph.elements import Role, Shape, Shape4
from ghnq.graph.tracing.call_record import CallRecord
from ghnq.graph.tracing.function_names import PRODUCTS, SCALES, SUMS


def shape4(shape: Shape) -> Shape4:
    """Returns the shape of a weight as (out, in, height, width).

    Missing dimensions are 1; the size of a 1-D kernel is its width; of more than two spatial dimensions the last two
    are kept.
    """
    if len(shape) == 3:
        return (shape[0], shape[1], 1, shape[2])
    out, in_, height, width = (*shape[:2], *shape[2:][-2:], 1, 1, 1, 1)[:4]
    return (out, in_, height, width)


def parameter_node(
    function: str,
    index: int,
    shape: Shape,
    inputs: tuple[int, ...],
    output_shape: Shape,
    *,
    several: bool,
    left: bool = False,
) -> CallRecord:
    """Returns the record of the node for a parameter that a function combines with activations.

    Args:
        function: The name of the function.
        index: Of the parameter.
        shape: Of the parameter.
        inputs: The records of the activations.
        output_shape: Of the result.
        several: Whether the argument was computed from several parameters, so that the role of each is unknown.
        left: Whether the parameter is the left factor of a product.
    """
    dims = tuple(size for size in shape if size != 1)
    vector = len(dims) < 2
    flat: Shape4 = (prod(dims), 1, 1, 1)
    if function in SUMS | PRODUCTS and vector and not several:
        return CallRecord("bias", function, inputs, output_shape, flat, bias=index)
    if function in SUMS and not several:
        return CallRecord("pos_enc", function, inputs, output_shape, _positions(shape), bias=index)
    if function in PRODUCTS and len(shape) == 2 and not several:
        node_shape = shape4(shape if left else shape[::-1])
        return CallRecord("conv", function, inputs, output_shape, node_shape, weight=index)
    role: Role = "bias" if vector else "weight"
    if function in SCALES or (vector and several):
        role = "norm_weight"
    elif function in ("cat", "concat", "concatenate", "stack", "where", "prelu"):
        role = "bias"
    node_shape = flat if vector else _positions(shape)
    if role == "bias":
        return CallRecord("other", function, inputs, output_shape, node_shape, bias=index, role=role)
    return CallRecord("other", function, inputs, output_shape, node_shape, weight=index, role=role)


def _positions(shape: Shape) -> Shape4:
    """Returns (1, D, H, W) for a position embedding; tokens [1, T, D] form a square, as in GHN-3."""
    if len(shape) == 3 and shape[0] == 1:
        side = max(isqrt(shape[1]), 1)
        return (1, shape[2], side, side)
    return shape4(shape)
