"""From the records of one run to a graph, in named steps: contract, prune, number, own."""

from __future__ import annotations

from ghnq.errors import GraphError
from ghnq.graph.ir import ArchGraph, Node, Parameter, Role
from ghnq.graph.ops import KERNEL_OPS
from ghnq.graph.tracing import function_names as functions
from ghnq.graph.tracing.call_record import INPUT, PARAMETER, PASS, Record, Shape
from ghnq.graph.tracing.inspection import Survey

_MERGES = ("sum", "concat", "cse")


def build(records: list[Record], outputs: list[int], survey: Survey, input_shape: Shape) -> ArchGraph:
    """The graph of the records `outputs` and of everything they hang on; the first of them is the network's output.

    Raises `GraphError` where an output does not depend on the input, or where no parameter reaches one.
    """
    sources, outputs = contract(records, outputs)
    kept = prune(records, sources, outputs)
    some_parameter_reaches(records, kept, survey)
    nodes, edges, first, last = number(records, sources, kept, survey)
    parameters = own(records, kept, first, last, survey, classification_layers(records, outputs))
    owned = {parameter.name for parameter in parameters}
    leads_on = {u for u, _ in edges}
    return ArchGraph(
        nodes=tuple(nodes),
        edges=tuple(sorted(edges)),
        parameters=parameters,
        input_shape=input_shape,
        num_outputs=_num_outputs(records[outputs[0]]),
        further_outputs=tuple(i for i in range(len(nodes) - 1) if i not in leads_on),
        unused=tuple(name for name in survey.names if name not in owned),
    )


def _num_outputs(output: Record) -> int:
    return output.shape[1] if len(output.shape) > 3 else output.shape[-1]


def contract(records: list[Record], outputs: list[int]) -> tuple[list[tuple[int, ...]], list[int]]:
    """For every record the records of nodes that its value comes from: itself where it is a node.

    Functions that are not nodes hand on where they come from; a sum, concatenation or product of values that come from
    one and the same node is not a node either (GHN-2 keeps these only with more than one incoming edge). Where the
    first output itself is none and comes from several nodes, a sum is put behind them, so that one node is the output.
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
    first = outputs[0]
    if len(sources[first]) > 1:
        last = records[first]
        records.append(Record("sum", last.function, (first,), last.shape))
        first = len(records) - 1
        sources.append((first,))
    return sources, [first, *outputs[1:]]


def _union(sources: list[tuple[int, ...]], inputs: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(source for i in inputs for source in sources[i]))


def prune(records: list[Record], sources: list[tuple[int, ...]], outputs: list[int]) -> list[int]:
    """The records of nodes from which a path leads to an output, in the order of their calls, but the output last.

    Where further outputs are computed from the first, it cannot be last, and the order stays that of the calls.
    """
    final = sources[outputs[0]]
    reached = {source for output in outputs for source in sources[output]}
    stack = list(reached)
    inner: set[int] = set()
    while stack:
        for source in _union(sources, records[stack.pop()].inputs):
            inner.add(source)
            if source not in reached:
                reached.add(source)
                stack.append(source)
    if not final or not any(records[i].kind == INPUT for i in reached):
        raise GraphError("the output does not depend on the input: nothing leads from the image to it")
    return sorted(reached, key=lambda i: (i in final and i not in inner, i))


def some_parameter_reaches(records: list[Record], kept: list[int], survey: Survey) -> None:
    """Raises `GraphError` where no parameter reaches an output: there is nothing to predict."""
    if not any(records[i].weight >= 0 or records[i].bias >= 0 for i in kept):
        shown = ", ".join(repr(name) for name in survey.names[:5])
        raise GraphError(f"no parameter reaches the output (the module has {shown}): there is nothing to predict")


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
        name = record.function if owned < 0 else survey.names[owned]
        if owned >= 0 and record.kind not in ("other", "pos_enc"):
            name = name.rpartition(".")[0]
        nodes.append(Node(record.kind, name, record.node_shape, output_shape))
        if record.kind in KERNEL_OPS and record.bias >= 0:
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


def classification_layers(records: list[Record], outputs: list[int]) -> set[int]:
    """The records that make the classes: a linear layer or 1x1 convolution behind which only reshapes and a bias come.

    An output that is the sum of several such layers (a class token's and a distillation token's) has them all. Further
    outputs count where they have as many classes as the first.
    """
    classes = _num_outputs(records[outputs[0]])
    found: set[int] = set()
    for output in outputs:
        if records[output].shape and _num_outputs(records[output]) == classes:
            found |= _linear_behind(records, output) or set()
    return found


def _linear_behind(records: list[Record], output: int) -> set[int] | None:
    """The linear layers, and biases, that a record is a reshape or a sum of; None where there is something else."""
    record = records[output]
    if record.kind == "conv":
        is_linear = record.node_shape is not None and record.node_shape[2:] == (1, 1)
        return {output} if is_linear else None
    inputs = [i for i in record.inputs if records[i].kind != PARAMETER]
    reshaped = record.kind == PASS and record.function in functions.BEHIND_CLASSES and len(inputs) == 1
    if not inputs or not (reshaped or record.kind in ("sum", "bias")):
        return None
    found: set[int] = {output} if record.kind == "bias" else set()
    for i in inputs:
        behind = _linear_behind(records, i)
        if behind is None:
            return None
        found |= behind
    return found


def own(
    records: list[Record], kept: list[int], first: dict[int, int], last: dict[int, int], survey: Survey, final: set[int]
) -> tuple[Parameter, ...]:
    """Every parameter with its node and role; a shared one belongs to the node that uses it first."""
    owned: dict[int, Parameter] = {}
    for i in kept:
        record = records[i]
        norm = record.kind in ("bn", "ln")
        weight_role: Role = record.role or ("norm_weight" if norm else "class_weight" if i in final else "weight")
        bias_role: Role = "norm_bias" if norm else "class_bias" if i in final else "bias"
        for number, node, role in ((record.weight, first[i], weight_role), (record.bias, last[i], bias_role)):
            if number >= 0 and number not in owned:
                owned[number] = Parameter(survey.names[number], survey.shapes[number], node, role)
    return tuple(sorted(owned.values(), key=lambda parameter: parameter.node))
