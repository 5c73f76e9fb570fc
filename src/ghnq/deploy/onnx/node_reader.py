"""One node of an ONNX model, as the operators of `op_table.py` read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx
from torch.fx.node import Argument, Target

from ghnq.deploy.graph.rewriter import GraphBuilder

Attribute = int | float | bytes | list[int] | list[float]


@dataclass(frozen=True, eq=False)
class NodeReader:
    """An ONNX node and the graph that its call is added to.

    What is missing or of another type ends in a KeyError, IndexError, TypeError or ValueError.

    Attributes:
        graph: The graph under construction.
        inputs: The nodes of the graph that stand for the inputs; None for an input that is left out.
        attributes: The attributes by name.
    """

    graph: GraphBuilder
    inputs: Sequence[fx.Node | None]
    attributes: Mapping[str, Attribute]

    def call(self, target: Target, *args: Argument) -> fx.Node:
        """Adds a call to the graph."""
        return self.graph.call(target, *args)

    def input(self, index: int) -> fx.Node:
        """Returns an input."""
        node = self.inputs[index]
        if node is None:
            raise TypeError(f"input {index} is missing")
        return node

    def optional_input(self, index: int) -> fx.Node | None:
        """Returns an input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int) -> Tensor:
        """Returns the values of an input, which has to be constant."""
        return self.graph.tensor(self.input(index))

    def integers(self, index: int) -> list[int]:
        """Returns the values of a constant input as a list."""
        return [int(value) for value in self.tensor(index).flatten().tolist()]

    def number(self, index: int) -> float:
        """Returns the value of a constant input that has one element."""
        value: float = self.tensor(index).item()
        return value

    def integer_attribute(self, name: str) -> int:
        """Returns an attribute that is an integer."""
        value = self.attributes[name]
        if not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}")
        return value

    def float_attribute(self, name: str) -> float:
        """Returns an attribute that is a float."""
        value = self.attributes[name]
        if not isinstance(value, float):
            raise TypeError(f"{name} is {value!r}")
        return value

    def text_attribute(self, name: str) -> str:
        """Returns an attribute that is a text."""
        value = self.attributes[name]
        if not isinstance(value, bytes):
            raise TypeError(f"{name} is {value!r}")
        return value.decode()

    def integers_attribute(self, name: str) -> list[int]:
        """Returns an attribute that is a list of integers."""
        value = self.attributes[name]
        if not isinstance(value, list):
            raise TypeError(f"{name} is {value!r}")
        return [int(each) for each in value]
