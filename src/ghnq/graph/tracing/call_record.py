"""The record of one call while a module runs; the graph is made from the records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ghnq.graph.elements import Role, Shape, Shape4

INPUT, PASS, PARAMETER = "input", "pass", "parameter"

# Torch functions take and return tensors, numbers, dtypes, sequences of these, and more.
TorchFunction = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


@dataclass(slots=True)
class CallRecord:
    """One call of a torch function, or the input, or a parameter. Records refer to each other by their index.

    Attributes:
        kind: An op of the vocabulary; `pass` for a function that is not a node; `parameter` for a value that depends on
            parameters alone.
        function: The name of the torch function.
        inputs: The records of the arguments.
        shape: Of the result, with the batch dimension.
        node_shape: Of the node to be made; see `Node.shape`.
        weight: The index of the parameter that is the weight, -1 if there is none.
        bias: The same for the bias.
        role: The role of the weight or bias, if it does not follow from `kind`.
        roots: For a value that depends on parameters alone, the indices of these parameters.
    """

    kind: str
    function: str
    inputs: tuple[int, ...]
    shape: Shape
    node_shape: Shape4 | None = None
    weight: int = -1
    bias: int = -1
    role: Role | None = None
    roots: tuple[int, ...] = ()
