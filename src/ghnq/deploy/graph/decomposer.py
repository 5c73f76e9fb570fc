"""The rewriter of exported graphs, as the rules of `decompositions.py` use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, fx
from torch.fx.node import Argument, Target

from ghnq.deploy.graph.rewriter import GraphRewriter
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError
from ghnq.torch_compat import schema_arguments

Size = int | Sequence[int]
"""A size for height and width: one number for both, or two."""

_LIBRARY_PATHS = ("/torch/", f"{Path(__file__).parents[2].as_posix()}/")
"""Parts of the paths of files that are not the user's code: torch's, and this package's."""


class Decomposer(GraphRewriter):
    """Rewrites an exported graph in supported operators; constants are `get_attr` nodes of the new graph.

    Attributes:
        current: The exported node that is being rewritten, for messages.
    """

    current: fx.Node

    def run_node(self, n: fx.Node) -> fx.Node | Tensor | None:
        """Returns the value of a node of the exported graph."""
        self.current = n
        return super().run_node(n)

    def call(self, target: Target, *args: Argument, like: fx.Node, value: Tensor | None = None) -> fx.Node:
        """Adds a call.

        Args:
            like: The exported node that it comes from.
            value: A tensor of the result's shape, if it is not that of `like`.

        Raises:
            ExportError: The result is not float32.
        """
        node = self.new.call(target, *args)
        node.meta = {"val": like.meta["val"] if value is None else value, "where": source_location(like)}
        if node.meta["val"].dtype != torch.float32:
            raise ExportError(
                f"{node.meta['where']} gives {node.meta['val'].dtype}; a file holds float32 networks only: "
                "make its constants float32, and call .float() on the network"
            )
        return node

    def constant(self, name: str, tensor: Tensor) -> fx.Node:
        """Adds a tensor that is independent of the input, under a name that nothing else has."""
        node = self.new.constant(name, tensor, shared=False)
        node.meta["where"] = "a constant"
        return node

    def reshape(self, x: fx.Node, like: fx.Node, shape: Sequence[int | torch.SymInt] | None = None) -> fx.Node:
        """Adds a reshape to the shape of `like` or to `shape`, of which only the first size may be free.

        Raises:
            ExportError: Another size depends on the batch.
        """
        sizes = list(like.meta["val"].shape if shape is None else shape)
        fixed = [-1 if i == 0 and not isinstance(size, int) else size for i, size in enumerate(sizes)]
        if not all(isinstance(size, int) for size in fixed):
            raise ExportError(
                f"{source_location(like)}: a shape of {tuple(map(str, sizes))} depends on the batch beyond its first "
                "size; only the batch may vary"
            )
        return self.call(aten.reshape.default, x, fixed, like=like, value=x.meta["val"].reshape(tuple(sizes)))

    def value(self, node: fx.Node) -> fx.Node:
        """Returns the new node that stands for an exported one; constants are converted to float32.

        Raises:
            ExportError: The exported node is a number that depends on the batch, which a file cannot express.
        """
        value = self.env.get(node)
        if not isinstance(value, fx.Node):
            raise ExportError(
                f"{source_location(self.current)} computes with the number of images in the batch, which cannot be "
                "expressed in a file for a device; what a network computes for one image must not depend on the others"
            )
        if value.op == "get_attr" and value.meta["val"].dtype != torch.float32:
            # torch computes with it as with a float32 tensor; where it does not, `call` refuses the result.
            return self.constant(f"{value.target}_float", value.meta["val"].to(torch.float32))
        return value

    def full_values(self, node: fx.Node) -> tuple[Argument, ...]:
        """Returns all arguments of an exported call in order, with defaults, and `value(node)` for each node."""
        return self.values(tuple(full_arguments(node)))


def source_location(node: fx.Node) -> str:
    """Returns the function of an exported node, and the module and line of the user's code, for messages."""
    stack = node.meta.get("nn_module_stack") or {}
    module = next((path for path, _ in reversed(list(stack.values())) if path), "(root)")
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    files = [line for line in lines if line.startswith("File ") and not any(part in line for part in _LIBRARY_PATHS)]
    where = f" ({files[-1]})" if files else ""
    return f"{node.target} in module '{module}'{where}"


def full_arguments(node: fx.Node) -> list[Argument]:
    """Returns all arguments of an ATen call in order, with the defaults of those that were left out."""
    return [
        node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        for i, argument in enumerate(schema_arguments(node))
    ]


def height_width(size: Size) -> list[int]:
    """Returns sizes for height and width, given as one number or two."""
    return [size, size] if isinstance(size, int) else [*size] * (2 // len(size))
