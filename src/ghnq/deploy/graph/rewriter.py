"""Building graphs, rewriting one into another, and looking at the tensors that a graph computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument, Target

COPIED_META = ("val", "where", "layer")
"""Keys of `node.meta` that a rewritten node takes over: a tensor of its shape, its place for messages, its layer."""


class GraphBuilder:
    """A graph under construction, and the tensors that its `get_attr` nodes read."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}

    def call(
        self,
        target: Target,
        *args: Argument,
        kwargs: Mapping[str, Argument] | None = None,
        like: fx.Node | None = None,
    ) -> fx.Node:
        """Adds a call of a function; it takes over the meta of `like`."""
        assert callable(target)
        return self.copy_meta(like, self.graph.call_function(target, args, dict(kwargs or {})))

    def constant(self, name: str, tensor: Tensor, *, shared: bool = True) -> fx.Node:
        """Adds a node that reads a tensor, stored under `name` or, where that is taken, under a longer name.

        Args:
            shared: Whether to use an identical tensor that is stored under the name already.
        """
        name = name.replace(".", "_")
        while name in self.tensors and not (shared and _identical(self.tensors[name], tensor)):
            name += "_"
        self.tensors[name] = tensor.detach()
        node = self.graph.create_node("get_attr", name)
        node.meta["val"] = tensor.detach()
        return node

    def rename(self, node: fx.Node, name: str) -> None:
        """Stores the tensor of a `get_attr` node under a name as in a state dict, in which dots mean modules."""
        tensor = self.tensor(node)
        while name in self.tensors and not _identical(self.tensors[name], tensor):
            name += "_"
        self.tensors[name] = tensor
        node.target = name

    def tensor(self, node: fx.Node) -> Tensor:
        """Returns the tensor that a `get_attr` node of the new graph reads."""
        return self.tensors[str(node.target)]

    def copy_meta(self, source: fx.Node | None, node: fx.Node) -> fx.Node:
        """Copies the entries of `COPIED_META` from one node to another, and returns the latter."""
        if source is not None:
            node.meta.update({key: source.meta[key] for key in COPIED_META if key in source.meta})
        return node

    def module(self, class_name: str = "Graph") -> fx.GraphModule:
        """Returns a module in eval mode that runs the graph, with the tensors that it reads as buffers."""
        root = nn.Module()
        used = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        for name, tensor in self.tensors.items():
            if name in used:
                *path, leaf = name.split(".")
                parent = root
                for part in path:
                    if part not in dict(parent.named_children()):
                        parent.add_module(part, nn.Module())
                    parent = parent.get_submodule(part)
                parent.register_buffer(leaf, tensor)
        return fx.GraphModule(root, self.graph, class_name).eval()


class GraphRewriter(fx.Interpreter):
    """Writes a graph anew, node by node: an interpreter whose values are nodes of the new graph.

    The value of a `get_attr` node is its tensor; each function that reads it gets a `get_attr` node of its own. By
    default the new graph is a copy of the old one; subclasses override `placeholder_node`, `call_node`, `output_node`
    or `value`.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False  # an error keeps its message
        self.new = GraphBuilder()

    def rewrite(self, class_name: str = "Graph") -> fx.GraphModule:
        """Returns the new graph as a module; the old one stays as it is."""
        self.run(enable_io_processing=False)
        return self.new.module(class_name)

    def run_node(self, n: fx.Node) -> fx.Node | Tensor | None:
        """Returns the value of a node: a node of the new graph, a tensor, or None for what has no value."""
        if n.op == "placeholder":
            return self.placeholder_node(n)
        if n.op == "call_function":
            return self.call_node(n)
        if n.op == "output":
            return self.output_node(n)
        tensor: Tensor = self.fetch_attr(str(n.target))
        return tensor

    def placeholder_node(self, node: fx.Node) -> fx.Node:
        """Returns the value of an input."""
        return self.new.copy_meta(node, self.new.graph.placeholder(str(node.target)))

    def call_node(self, node: fx.Node) -> fx.Node | None:
        """Returns the value of a call: the same call in the new graph."""
        return self.new.call(node.target, *self.values(node.args), like=node)

    def output_node(self, node: fx.Node) -> fx.Node:
        """Adds the output."""
        return self.new.copy_meta(node, self.new.graph.output(self.value(node_argument(node))))

    def value(self, node: fx.Node) -> fx.Node:
        """Returns the node of the new graph that stands for a node of the old one where a function reads it."""
        value = self.env[node]
        return self.new.constant(str(node.target), value) if isinstance(value, Tensor) else value

    def values(self, arguments: tuple[Argument, ...]) -> tuple[Argument, ...]:
        """Returns the arguments of a call with `value(node)` in place of each node."""
        mapped: tuple[Argument, ...] = fx.map_arg(arguments, self.value)
        return mapped


class _TensorVisitor(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, visit: Callable[[fx.Node, Tensor], None]) -> None:
        super().__init__(module)
        self.visit = visit

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.visit(n, result)
        return result


@torch.no_grad()
def visit_tensors(module: fx.GraphModule, batches: Iterable[Tensor], visit: Callable[[fx.Node, Tensor], None]) -> None:
    """Runs a graph on batches of images [B, C, H, W] and calls `visit` with each node and the tensor it computes."""
    for images in batches:
        _TensorVisitor(module, visit).run(images)


def node_argument(node: fx.Node, index: int = 0) -> fx.Node:
    """Returns an argument of a node, which has to be a node itself."""
    argument = node.args[index]
    assert isinstance(argument, fx.Node), f"argument {index} of {node.format_node()} is not a node"
    return argument


def constant_argument(module: nn.Module, node: fx.Node, index: int) -> Tensor:
    """Returns the tensor that an argument of a node, a `get_attr` node, reads from `module`."""
    tensor: Tensor = getattr(module, str(node_argument(node, index).target))
    return tensor


def _identical(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
