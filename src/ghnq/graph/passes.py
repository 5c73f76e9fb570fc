"""From the records of one run to a graph, in named steps: contract, prune, refuse strays, number, own."""

from __future__ import annotations

from ..errors import GraphError
from . import functions
from .ir import ArchGraph, Node, Parameter, Role
from .record import INPUT, PARAMETER, PASS, Record, Shape
from .survey import Survey

_MERGES = ("sum", "concat", "cse")
_CONVS = ("conv", "sep_conv", "dil_conv")


def build(records: list[Record], output: int, survey: Survey, input_shape: Shape) -> ArchGraph:
    """The graph of the record `output` and of everything it hangs on.

    Raises `GraphError` naming a parameter that does not reach the output, or that enters where the vocabulary has no
    owner for it.
    """
    sources, output = contract(records, output)
    kept = prune(records, sources, output)
    refuse_strays(records, kept, survey)
    nodes, edges, first, last = number(records, sources, kept, survey)
    parameters = own(records, kept, first, last, survey, classification_layer(records, output))
    shape = records[output].shape
    return ArchGraph(
        nodes=tuple(nodes),
        edges=tuple(sorted(edges)),
        parameters=parameters,
        input_shape=input_shape,
        num_outputs=shape[1] if len(shape) > 3 else shape[-1],
    )


def contract(records: list[Record], output: int) -> tuple[list[tuple[int, ...]], int]:
    """For every record the records of nodes that its value comes from: itself where it is a node.

    Functions that are not nodes hand on where they come from; a sum, concatenation or product of values that come from
    one and the same node is not a node either (GHN-2 keeps these only with more than one incoming edge). Where the
    output itself is none and comes from several nodes, a sum is put behind them, so that the graph has one last node.
    """
    sources: list[tuple[int, ...]] = []
    for i, record in enumerate(records):
        kind = record.kind
        if kind in (INPUT, PARAMETER):
            sources.append((i,) if kind == INPUT else ())
        elif kind == PASS or kind in _MERGES:
            inputs = record.inputs
            come_from = sources[inputs[0]] if len(inputs) == 1 else _union(sources, inputs)
            sources.append((i,) if kind != PASS and len(come_from) > 1 else come_from)
        else:
            sources.append((i,))
    if len(sources[output]) > 1:
        last = records[output]
        records.append(Record("sum", last.function, (output,), last.shape))
        output = len(records) - 1
        sources.append((output,))
    return sources, output


def _union(sources: list[tuple[int, ...]], inputs: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(source for i in inputs for source in sources[i]))


def prune(records: list[Record], sources: list[tuple[int, ...]], output: int) -> list[int]:
    """The records of nodes from which a path leads to the output, in the order of their calls."""
    reached = set(sources[output])
    stack = list(reached)
    while stack:
        for source in _union(sources, records[stack.pop()].inputs):
            if source not in reached:
                reached.add(source)
                stack.append(source)
    if not any(records[i].kind == INPUT for i in reached):
        raise GraphError("the output does not depend on the input: nothing leads from the image to it")
    return sorted(reached)


def refuse_strays(records: list[Record], kept: list[int], survey: Survey) -> None:
    """Raises `GraphError` for a parameter that is not the weight or bias of a kept node."""
    used = {number for i in kept for number in (records[i].weight, records[i].bias)}
    missing = [number for number in range(len(survey.names)) if number not in used]
    if not missing:
        return
    for record in records:
        for number in record.roots if record.kind != PARAMETER else ():
            if number in missing:
                raise GraphError(
                    f"parameter {survey.names[number]!r} of shape {survey.shapes[number]} enters through "
                    f"`{record.function}`, where the vocabulary has no op to own it; owners are convolutions, linear "
                    "layers and batch, layer, group and instance norms"
                )
    touched = {number for record in records for number in (record.weight, record.bias)}
    shown = ", ".join(repr(survey.names[number]) for number in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    reason = "does not reach the first output" if missing[0] in touched else "is never used by the forward pass"
    raise GraphError(
        f"parameter {shown}{more}: {survey.names[missing[0]]!r} {reason}, so there is nothing to predict it from; "
        "remove it from the module, or trace the part that is used"
    )


def number(
    records: list[Record], sources: list[tuple[int, ...]], kept: list[int], survey: Survey
) -> tuple[list[Node], list[tuple[int, int]], dict[int, int], dict[int, int]]:
    """Nodes and edges in the order of the calls; a weight and its bias become two nodes, the bias behind the weight.

    Also returns, for every kept record, the number of its first node (edges lead there) and of its last (from there).
    """
    nodes: list[Node] = []
    edges: list[tuple[int, int]] = []
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i in kept:
        record = records[i]
        at = first[i] = len(nodes)
        output_shape = _without_batch(record.shape)
        owned = record.weight if record.weight >= 0 else record.bias
        name = survey.names[owned].rpartition(".")[0] if owned >= 0 else record.function
        nodes.append(Node(record.kind, name, record.node_shape, output_shape))
        if record.kind in _CONVS and record.bias >= 0:
            assert record.node_shape is not None  # the rules give every convolution its shape
            path = survey.names[record.bias].rpartition(".")[0]
            nodes.append(Node("bias", path, (record.node_shape[0], 1, 1, 1), output_shape))
            edges.append((at, at + 1))
        last[i] = len(nodes) - 1
        edges.extend((last[source], at) for source in _union(sources, record.inputs))
    return nodes, edges, first, last


def _without_batch(shape: Shape) -> Shape:
    """The shape of one image's activation, from the shape for a batch of two; windows join the first size."""
    if shape and shape[0] % 2 == 0:
        return shape[1:] if shape[0] == 2 else (shape[0] // 2, *shape[1:])
    if len(shape) > 1 and shape[1] == 2:
        return (shape[0], *shape[2:])
    return shape


def classification_layer(records: list[Record], output: int) -> int:
    """The record of the linear layer or 1x1 convolution that makes the output, through reshapes only; -1 for none."""
    record = records[output]
    while record.kind == PASS and record.function in functions.RESHAPES and len(record.inputs) == 1:
        output = record.inputs[0]
        record = records[output]
    is_linear = record.kind == "conv" and record.node_shape is not None and record.node_shape[2:] == (1, 1)
    return output if is_linear else -1


def own(
    records: list[Record], kept: list[int], first: dict[int, int], last: dict[int, int], survey: Survey, final: int
) -> tuple[Parameter, ...]:
    """Every parameter with its node and role; a shared one belongs to the node that uses it first."""
    owned: dict[int, Parameter] = {}
    for i in kept:
        record = records[i]
        norm = record.kind in ("bn", "ln")
        weight_role: Role = "norm_weight" if norm else "class_weight" if i == final else "weight"
        bias_role: Role = "norm_bias" if norm else "class_bias" if i == final else "bias"
        for number, node, role in ((record.weight, first[i], weight_role), (record.bias, last[i], bias_role)):
            if number >= 0 and number not in owned:
                owned[number] = Parameter(survey.names[number], survey.shapes[number], node, role)
    return tuple(sorted(owned.values(), key=lambda parameter: parameter.node))
