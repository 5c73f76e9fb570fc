"""Peak memory of the activations of a deployed graph, for one image, from the file alone.

Nodes are executed in the order of the file. While a node is executed, its inputs, its result, and every earlier tensor
that a later node reads are live; the peak is the largest sum of their bytes. Weights and the workspace of kernels are
not counted. Rules:

- A quantized tensor has one byte per element, a float32 tensor four; the images are float32.
- A layer, sum, product, concatenation or pooling reads and returns integers where all its inputs and its result are
  quantized (a linear layer may also return float32): no float tensor is made for it.
- Any other operator reads float32: its quantized inputs are dequantized to float tensors.
- A reshape, and a clip whose input has no other consumer, need no memory of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from torch import fx

from ghnq.deploy.graph.quantize_ops import dequantize, is_quantized, quantize, quantize_node
from ghnq.deploy.graph.supported_ops import KINDS, aten, kind_of

FLOAT_BYTES = 4
T = TypeVar("T", bound=Hashable)


class Step(NamedTuple, Generic[T]):
    """One executed node: the tensors that it reads, the tensor that it makes, and the bytes of that tensor."""

    reads: frozenset[T]
    made: T
    size: int


def peak_memory(simulation: fx.GraphModule) -> int:
    """Returns the largest number of bytes of activations that are live at once, for a graph with shapes."""
    return peak(list(steps(simulation)))


def peak(steps: list[Step[T]]) -> int:
    """Returns the largest sum of live bytes over the steps, in their order."""
    last = {step.made: i for i, step in enumerate(steps)}
    last |= {tensor: i for i, step in enumerate(steps) for tensor in step.reads}
    live: dict[T, int] = {}
    most = 0
    for i, step in enumerate(steps):
        live[step.made] = step.size
        most = max(most, sum(live.values()))
        live = {tensor: size for tensor, size in live.items() if last[tensor] > i}
    return most


def steps(simulation: fx.GraphModule) -> Iterator[Step[fx.Node]]:
    """Yields the execution of a graph with shapes, node by node."""
    at: dict[fx.Node, fx.Node] = {}  # node -> the node whose memory has its values
    for node in simulation.graph.nodes:
        if node.op == "placeholder":
            at[node] = node
            yield Step(frozenset(), node, _elements(node) * FLOAT_BYTES)
        elif node.op != "call_function" or _is_constant(node):
            continue
        elif node.target is quantize:
            at[node] = node
            source = node.args[0]
            reads = _integers(source, at) if _returns_integers(source) else _values(node, at)
            yield Step(reads, node, _elements(node))
        elif is_quantized(node):
            at[node] = at[quantize_node(node)]
        elif node.target is dequantize:
            if all(_runs_in_integers(user) for user in node.users):
                continue
            at[node] = node
            yield Step(frozenset([at[node.args[0]]]), node, _elements(node) * FLOAT_BYTES)
        elif _returns_integers(node):
            continue  # The step is that of the `quantize` node that follows.
        elif _in_place(node):
            at[node] = at[node.args[0]]
        else:
            at[node] = node
            reads = _integers(node, at) if _runs_in_integers(node) else _values(node, at)
            yield Step(reads, node, _elements(node) * FLOAT_BYTES)


def _runs_in_integers(node: fx.Node) -> bool:
    """Returns whether an integer kernel computes the node."""
    kind = "float" if node.target not in KINDS else kind_of(node)
    if kind not in ("layer", "integer", "same_grid") or any(
        source.target is not dequantize for source in _inputs(node)
    ):
        return False
    return _one_user(node, lambda user: user.target is quantize) or node.target is aten.linear.default


def _returns_integers(node: fx.Node) -> bool:
    return _runs_in_integers(node) and _one_user(node, lambda user: user.target is quantize)


def _in_place(node: fx.Node) -> bool:
    if node.target is aten.reshape.default:
        return True
    if KINDS.get(node.target) != "clip":
        return False
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source.op != "placeholder" and source.target is not dequantize and len(source.users) == 1


def _one_user(node: fx.Node, holds: Callable[[fx.Node], bool]) -> bool:
    return len(node.users) == 1 and holds(next(iter(node.users)))


def _inputs(node: fx.Node) -> list[fx.Node]:
    """Returns what a node reads without constants, but with quantized weights, which decide about the kernel."""
    return [source for source in node.all_input_nodes if source.op != "get_attr" or KINDS.get(node.target) == "layer"]


def _integers(node: fx.Node, at: dict[fx.Node, fx.Node]) -> frozenset[fx.Node]:
    """Returns the integer tensors that the inputs of an integer kernel are dequantized from."""
    sources = [source.args[0] for source in node.all_input_nodes if not _is_constant(source)]
    return frozenset(at[source] for source in sources if isinstance(source, fx.Node))


def _values(node: fx.Node, at: dict[fx.Node, fx.Node]) -> frozenset[fx.Node]:
    return frozenset(at[source] for source in node.all_input_nodes if not _is_constant(source))


def _is_constant(node: fx.Node) -> bool:
    """Returns whether a node is a tensor of the file: a constant, or a quantized weight."""
    source = node.args[0] if node.target is dequantize else node
    return isinstance(source, fx.Node) and source.op == "get_attr"


def _elements(node: fx.Node) -> int:
    return int(node.meta["val"].numel())
