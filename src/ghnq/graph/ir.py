"""What an architecture is: nodes in topological order, edges, and for every parameter the one node that owns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["weight", "bias", "norm_weight", "norm_bias", "class_weight", "class_bias"]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the module: its dotted name, its shape, the node that owns it and the role it plays there."""

    name: str
    shape: Shape
    node: int
    role: Role


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    op: a name of `ghnq.graph.ops.OPS`.
    name: the module path for nodes that own parameters, otherwise the function (`max_pool2d`).
    shape: (out, in, height, width) as the hypernetwork embeds it: of the weight, of the bias (n, 1, 1, 1), of the pooling
        window (1, 1, k, k); None for the rest.
    output_shape: of the activation behind the node, without the batch dimension; () where unknown.
    """

    op: str
    name: str
    shape: tuple[int, int, int, int] | None = None
    output_shape: Shape = ()
