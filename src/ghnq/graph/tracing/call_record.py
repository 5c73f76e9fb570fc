"""What is remembered of one call while a module runs: the raw material from which the graph is made."""

from __future__ import annotations

from dataclasses import dataclass

from ghnq.graph.ir import Role

Shape = tuple[int, ...]

INPUT, PASS, PARAMETER = "input", "pass", "parameter"


@dataclass(slots=True)
class Record:
    """One call of a torch function, or the input, or a parameter; its number is its place in the list of records.

    kind: an op of the vocabulary; `pass` for a function that is not a node; `parameter` for a value that depends on
        parameters alone.
    inputs: numbers of the records whose values went in. shape: of the result, with the batch dimension.
    node_shape: of the node to be made (see `Node.shape`).
    weight, bias: number of the parameter in that place, -1 for none.
    role: of the weight, where the kind does not say it.
    roots: for a value that depends on parameters alone, the numbers of those.
    """

    kind: str
    function: str
    inputs: tuple[int, ...]
    shape: Shape
    node_shape: tuple[int, int, int, int] | None = None
    weight: int = -1
    bias: int = -1
    role: Role | None = None
    roots: tuple[int, ...] = ()
