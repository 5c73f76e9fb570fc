"""What a candidate costs at a scheme, from its graph alone: nothing is predicted, captured or run.

Dimensions are those of one image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod

from ghnq.deploy.cost.peak_memory import FLOAT_BYTES, Step, peak
from ghnq.deploy.graph.placement import STORED_BITS
from ghnq.graph import ArchGraph
from ghnq.graph.ops import KERNEL_OPS
from ghnq.quant import QuantScheme

_MERGED = frozenset({"bn", "bias"})
"""Ops that are folded into the convolution before them."""
_INTEGER = frozenset(KERNEL_OPS) | {"sum", "concat", "max_pool", "avg_pool", "glob_avg"}
"""Ops that integer kernels compute."""


@dataclass(frozen=True)
class Sizes:
    """The size of a network at a scheme.

    Attributes:
        parameters: Scalars; a shared parameter counts once.
        multiply_adds: Of convolutions and linear layers, for one image.
        bytes: Of all parameters: weights of quantized layers packed to their bits, everything else at 4 bytes.
        peak_memory: Of the activations that are live at once, in bytes, by the rules of `deploy/cost/peak_memory.py`;
            None where the graph does not have the shape of a tensor.
    """

    parameters: int
    multiply_adds: int
    bytes: int
    peak_memory: int | None

    def document(self) -> dict[str, int | None]:
        """Returns the sizes for JSON."""
        return asdict(self)


def sizes_of(graph: ArchGraph, scheme: QuantScheme) -> Sizes:
    """Returns the size of an architecture at a scheme."""
    return Sizes(graph.num_parameters, graph.multiply_adds, weight_bytes(graph, scheme), peak_memory(graph, scheme))


def weight_bytes(graph: ArchGraph, scheme: QuantScheme) -> int:
    """Returns the bytes of all parameters, those of quantized layers packed to the bits of the scheme."""
    total = 0
    for parameter in graph.parameters:
        bits = None
        if parameter.role in ("weight", "class_weight") and graph.nodes[parameter.node].op in KERNEL_OPS:
            bits = scheme.bits_for(parameter.name.rpartition(".")[0]).weight
        total += math.ceil(prod(parameter.shape) * (bits or 8 * FLOAT_BYTES) / 8)
    return total


def peak_memory(graph: ArchGraph, scheme: QuantScheme) -> int | None:
    """Returns the largest number of bytes of activations that are live at once; None where a shape is not known."""
    if any(not node.output_shape for node in graph.nodes):
        return None
    return peak(list(_steps(graph, scheme)))


def _steps(graph: ArchGraph, scheme: QuantScheme) -> Iterator[Step[int]]:
    """Yields the execution of a graph.

    Tensors have the numbers of the nodes that make them; -1 is the image in integers. Below 8 bits, a tensor that not
    only layers read is stored in 8 bits and quantized once more for the layers: -2 - v, by way of floats (-2 - N - v).
    """
    quantized = scheme.activation_bits is not None
    again = quantized and scheme.bits.activation != STORED_BITS
    memory = {0: 0}  # node -> the tensor that has its values
    copies: dict[int, int] = {}
    yield Step(frozenset(), 0, FLOAT_BYTES * prod(graph.input_shape))
    if quantized:
        yield Step(frozenset([0]), -1, prod(graph.input_shape))
        memory[0] = -1
    for number, node in enumerate(graph.nodes[1:], start=1):
        before = graph.predecessors[number]
        if node.op in _MERGED and len(before) == 1:
            memory[number] = memory[before[0]]
            continue
        memory[number] = number
        reads = {memory[u] for u in before}
        if again and node.op in KERNEL_OPS and _read_by_others(graph, before[0]):
            source = memory[before[0]]
            if source not in copies:
                copies[source], floats = -2 - before[0], -2 - len(graph) - before[0]
                elements = prod(graph.nodes[before[0]].output_shape)
                yield Step(frozenset([source]), floats, FLOAT_BYTES * elements)
                yield Step(frozenset([floats]), copies[source], elements)
            reads = {copies[source]}
        in_integers = quantized and node.op in _INTEGER and bool(graph.successors[number])
        yield Step(frozenset(reads), number, prod(node.output_shape) * (1 if in_integers else FLOAT_BYTES))


def _read_by_others(graph: ArchGraph, number: int) -> bool:
    """Returns whether not only convolutions and linear layers read a node; what reads its maxima counts."""
    start = number
    while graph.nodes[start].op in ("max_pool", *_MERGED) and len(graph.predecessors[start]) == 1:
        start = graph.predecessors[start][0]  # the same grid
    return any(graph.nodes[v].op not in KERNEL_OPS for v in _readers(graph, start))


def _readers(graph: ArchGraph, number: int) -> Iterator[int]:
    for v in graph.successors[number]:
        if graph.nodes[v].op in ("max_pool", *_MERGED):
            yield from _readers(graph, v)
        else:
            yield v
