"""What an operator is in an ONNX file: how one ATen function is written, and how its ONNX node is read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx
from torch.fx.node import Argument, Target

from ghnq.deploy.onnx.model_builder import ModelBuilder
from ghnq.deploy.onnx.node_reader import NodeReader

Write = Callable[..., str]
"""Takes the model, a call node and the arguments of the call; adds ONNX nodes; returns the name of the result."""

Read = Callable[[NodeReader], fx.Node]
"""Adds the call that an ONNX node computes, and returns it."""


@dataclass(frozen=True, kw_only=True)
class OnnxOp:
    """One ATen function as one ONNX operator.

    Attributes:
        target: The ATen function.
        name: The ONNX operator.
        write: None if calls of `target` are written by another record.
        read: None if nodes of this name are read by another record.
    """

    target: Target
    name: str
    write: Write | None
    read: Read | None


def tensor_op(target: Target, name: str) -> OnnxOp:
    """Returns the record of an operator whose arguments are all tensors, the same in both."""

    def write(model: ModelBuilder, node: fx.Node, *args: Argument) -> str:
        return model.add_node(name, [model.input_name(arg) for arg in args], node)

    def read(node: NodeReader) -> fx.Node:
        return node.call(target, *node.inputs)

    return OnnxOp(target=target, name=name, write=write, read=read)
