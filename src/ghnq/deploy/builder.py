"""The graph of known words under construction, and what the rules of `normal.py` need to know of an exported node."""

from typing import Any

from torch import Tensor, fx

from ghnq.deploy.ops import aten
from ghnq.errors import ExportError


class Builder:
    """The graph under construction; `at` maps exported nodes to ours, `constants` holds the tensors of `get_attr`."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.at: dict[fx.Node, fx.Node] = {}
        self.constants: dict[str, Tensor] = {}

    def call(self, target: Any, *args: Any, like: fx.Node, value: Any = None) -> fx.Node:
        """Adds a call; `like` is the exported node it comes from, `value` a tensor of the result's shape if another."""
        node = self.graph.call_function(target, args)
        node.meta = {"val": like.meta["val"] if value is None else value, "where": place_of(like)}
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
        """Arguments of an exported node with our nodes in place of its own."""
        return fx.map_arg(args, lambda node: self.at[node])

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
    files = [line for line in lines if line.startswith("File ") and "/torch/" not in line]
    where = f" ({files[-1]})" if files else ""
    return f"{node.target} in module '{module}'{where}"


def full_args(node: fx.Node) -> list[Any]:
    """All arguments of an ATen call in order, with the defaults of those that were left out."""
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    return [
        node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        for i, argument in enumerate(arguments)
    ]
