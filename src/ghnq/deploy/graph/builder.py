"""The graph of known words under construction, and what the rules of `normal.py` need to know of an exported node."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError
from ghnq.torch_compat import schema_arguments

_NOT_THE_USERS = ("/torch/", f"{Path(__file__).parents[2].as_posix()}/")
"""What stands in the paths of files that are no code of the user's: torch's, and our own."""


class Builder:
    """The graph under construction; `at` maps exported nodes to ours, `constants` holds the tensors of `get_attr`.

    `now` is the exported node that is being put into words, for messages.
    """

    now: fx.Node

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.at: dict[fx.Node, fx.Node] = {}
        self.constants: dict[str, Tensor] = {}

    def call(self, target: Any, *args: Any, like: fx.Node, value: Any = None) -> fx.Node:
        """Adds a call; `like` is the exported node it comes from, `value` a tensor of the result's shape if another."""
        node = self.graph.call_function(target, args)
        node.meta = {"val": like.meta["val"] if value is None else value, "where": place_of(like)}
        if node.meta["val"].dtype != torch.float32:
            raise ExportError(
                f"{node.meta['where']} gives {node.meta['val'].dtype}; a file holds float32 networks only: "
                "make its constants float32, and call .float() on the network"
            )
        return node

    def constant(self, name: str, tensor: Tensor) -> fx.Node:
        """Adds a tensor that hangs on no image, under a name of its own."""
        name = name.replace(".", "_")
        while name in self.constants:
            name += "_"
        self.constants[name] = tensor.detach()
        node = self.graph.create_node("get_attr", name)
        node.meta = {"val": tensor.detach(), "where": "a constant"}
        return node

    def mapped(self, args: Any) -> Any:
        """Arguments of an exported node with our nodes in place of its own.

        Raises ExportError for a number that hangs on the batch, which is no tensor and has no place in a file.
        """
        return fx.map_arg(args, self._mapped)

    def _mapped(self, node: fx.Node) -> fx.Node:
        if node not in self.at:
            raise ExportError(
                f"{place_of(self.now)} computes with the number of images in the batch, which cannot be expressed in a "
                "file for a device; what a network computes for one image must not depend on the others"
            )
        at = self.at[node]
        if at.op == "get_attr" and at.meta["val"].dtype != torch.float32:
            # torch computes with it as with a float32 tensor; where it does not, `call` refuses the result.
            return self.constant(f"{at.target}_float", at.meta["val"].to(torch.float32))
        return at

    def reshape(self, x: fx.Node, like: fx.Node, shape: Any = None) -> fx.Node:
        """Adds a reshape to the shape of `like` (or another one), of which only the first size may be free."""
        sizes = list(like.meta["val"].shape if shape is None else shape)
        fixed = [-1 if i == 0 and not isinstance(size, int) else size for i, size in enumerate(sizes)]
        if not all(isinstance(size, int) for size in fixed):
            raise ExportError(
                f"{place_of(like)}: a shape of {tuple(map(str, sizes))} hangs on the batch beyond its first size; "
                "only the batch may vary"
            )
        return self.call(aten.reshape.default, x, fixed, like=like, value=x.meta["val"].reshape(tuple(sizes)))


def place_of(node: fx.Node) -> str:
    """Which function, in which module and line of the user's code, for messages."""
    stack = node.meta.get("nn_module_stack") or {}
    module = next((path for path, _ in reversed(list(stack.values())) if path), "(root)")
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    files = [line for line in lines if line.startswith("File ") and not any(part in line for part in _NOT_THE_USERS)]
    where = f" ({files[-1]})" if files else ""
    return f"{node.target} in module '{module}'{where}"


def pair(size: Any) -> list[int]:
    """A size for height and width, from one number or two."""
    return [size, size] if isinstance(size, int) else [*size] * (2 // len(size))


def full_args(node: fx.Node) -> list[Any]:
    """All arguments of an ATen call in order, with the defaults of those that were left out."""
    return [
        node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        for i, argument in enumerate(schema_arguments(node))
    ]
