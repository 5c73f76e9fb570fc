"""The data of an architecture graph: nodes, parameters, and the fields that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["weight", "bias", "norm_weight", "norm_bias", "class_weight", "class_bias"]
Shape = tuple[int, ...]
Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the module.

    Attributes:
        name: The dotted name in the module.
        shape: The shape of the tensor.
        node: The index of the node that owns the parameter.
        role: What the parameter is in that node.
    """

    name: str
    shape: Shape
    node: int
    role: Role


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        op: A name of `ghnq.graph.ops.OPS`.
        name: The module path for nodes that own parameters, otherwise the function (`max_pool2d`).
        shape: (out, in, height, width) as the hypernetwork embeds it: of the weight; (n, 1, 1, 1) for norms and biases;
            (1, 1, k, k) for pooling windows; None for the rest.
        output_shape: Of the node's output activation, without the batch dimension; () where unknown.
    """

    op: str
    name: str
    shape: Shape4 | None = None
    output_shape: Shape = ()


@dataclass(frozen=True)
class GraphData:
    """The fields of a graph.

    Attributes:
        nodes: In topological order; node 0 is the input, the last node is the output.
        edges: (from, to) with from < to, sorted, unique.
        parameters: Sorted by node, a weight before its bias.
        input_shape: Of one image, without the batch dimension.
        num_outputs: The size of the last dimension of the output.
        further_outputs: If there are several outputs, the nodes without successors other than the last node. If one of
            them is computed from the first output, that one is the last node.
        unused: Names of parameters that reach no output; nothing is predicted for them.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    parameters: tuple[Parameter, ...]
    input_shape: Shape
    num_outputs: int
    further_outputs: tuple[int, ...] = ()
    unused: tuple[str, ...] = ()
