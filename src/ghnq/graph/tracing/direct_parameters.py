"""Parameters that a module uses directly, without a layer: which node owns each, and what it is there.

A matrix that multiplies is a linear layer, what is added is a bias or a position embedding: those the vocabulary knows.
For the rest, a scale of a residual branch, a class token, the slope of a PReLU, a kernel of a kind that nobody trained
on, there is the node `other`, of which only the shape is embedded.
"""

from __future__ import annotations

from math import isqrt, prod

from ghnq.graph.ir import Role
from ghnq.graph.tracing.call_record import Record, Shape
from ghnq.graph.tracing.function_names import PRODUCTS, SCALES, SUMS

Four = tuple[int, int, int, int]


def four(shape: Shape) -> Four:
    """A weight's shape as (out, in, height, width): ones fill up vectors and matrices, a 1-D kernel is a width.

    Of more than two spatial dimensions the last two count.
    """
    if len(shape) == 3:
        return (shape[0], shape[1], 1, shape[2])
    out, into, height, width = (*shape[:2], *shape[2:][-2:], 1, 1, 1, 1)[:4]
    return (out, into, height, width)


def stray(
    function: str, number: int, shape: Shape, inputs: tuple[int, ...], result: Shape, *, several: bool,
    left: bool = False,
) -> Record:  # fmt: skip
    """The node of parameter `number`, which has `shape` and meets activations in `function`.

    several: it makes a value together with other parameters, so that what it means there is not known.
    left: it is the left factor of a product. result: the shape of what comes out.
    """
    dims = tuple(size for size in shape if size != 1)
    vector = len(dims) < 2
    flat: Four = (prod(dims), 1, 1, 1)
    if function in SUMS | PRODUCTS and vector and not several:
        return Record("bias", function, inputs, result, flat, bias=number)
    if function in SUMS and not several:
        return Record("pos_enc", function, inputs, result, _positions(shape), bias=number)
    if function in PRODUCTS and len(shape) == 2 and not several:
        node_shape = four(shape if left else shape[::-1])
        return Record("conv", function, inputs, result, node_shape, weight=number)
    role: Role = "bias" if vector else "weight"
    if function in SCALES or (vector and several):
        role = "norm_weight"
    elif function in ("cat", "concat", "concatenate", "stack", "where", "prelu"):
        role = "bias"
    node_shape = flat if vector else _positions(shape)
    if role == "bias":
        return Record("other", function, inputs, result, node_shape, bias=number, role=role)
    return Record("other", function, inputs, result, node_shape, weight=number, role=role)


def _positions(shape: Shape) -> Four:
    """(1, D, H, W) of a position embedding: tokens [1, T, D] are put into a square, as GHN-3 does."""
    if len(shape) == 3 and shape[0] == 1:
        side = max(isqrt(shape[1]), 1)
        return (1, shape[2], side, side)
    return four(shape)
