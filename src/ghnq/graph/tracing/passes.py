"""From the records of one run to a graph, in named steps: find sources, prune, number nodes, assign parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from ghnq.errors import GraphError
from ghnq.graph.elements import Node, Parameter, Role, Shape
from ghnq.graph.ir import ArchGraph
from ghnq.graph.ops import KERNEL_OPS
from ghnq.graph.tracing import function_names as functions
from ghnq.graph.tracing.call_record import INPUT, PARAMETER, PASS, CallRecord
from ghnq.graph.tracing.module_snapshot import ModuleSnapshot

_MERGES = ("sum", "concat", "cse")


@dataclass(slots=True)
class NodeTable:
    """Nodes and edges, and which nodes were made from which record.

    Attributes:
        nodes: In the order of the calls.
        edges: (from, to).
        first: For each record its first node, to which edges lead.
        last: For each record its last node, from which edges lead on.
    """

    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    first: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)


def build_graph(
    records: list[CallRecord], outputs: list[int], snapshot: ModuleSnapshot, input_shape: Shape
) -> ArchGraph:
    """Returns the graph of the output records and of everything they depend on.

    Args:
        outputs: The first is the output of the network.

    Raises:
        GraphError: An output does not depend on the input, or no parameter reaches an output.
    """
    sources, outputs = find_sources(records, outputs)
    kept = prune(records, sources, outputs)
    _check_parameters_used(records, kept, snapshot)
    table = number_nodes(records, sources, kept, snapshot)
    parameters = assign_parameters(records, kept, table, snapshot, classification_layers(records, outputs))
    used = {parameter.name for parameter in parameters}
    with_successors = {u for u, _ in table.edges}
    return ArchGraph(
        nodes=tuple(table.nodes),
        edges=tuple(sorted(table.edges)),
        parameters=parameters,
        input_shape=input_shape,
        num_outputs=_num_outputs(records[outputs[0]]),
        further_outputs=tuple(i for i in range(len(table.nodes) - 1) if i not in with_successors),
        unused=tuple(name for name in snapshot.names if name not in used),
    )


def _num_outputs(output: CallRecord) -> int:
    return output.shape[1] if len(output.shape) > 3 else output.shape[-1]


def find_sources(records: list[CallRecord], outputs: list[int]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Finds, for each record, the records of the nodes from which its value comes: itself if it is a node.

    A function that is not a node has the sources of its inputs. A sum, concatenation or product whose inputs come from
    one node is not a node either (GHN-2 keeps these only with more than one incoming edge). If the first output is not
    a node and comes from several nodes, a sum of these is added, so that one node is the output.

    Returns:
        The sources, and the outputs.
    """
    sources: list[tuple[int, ...]] = []
    for i, record in enumerate(records):
        kind = record.kind
        if kind in (INPUT, PARAMETER):
            sources.append((i,) if kind == INPUT else ())
        elif kind == PASS or kind in _MERGES:
            inputs = record.inputs
            merged = sources[inputs[0]] if len(inputs) == 1 else _union(sources, inputs)
            sources.append((i,) if kind != PASS and len(merged) > 1 else merged)
        else:
            sources.append((i,))
    first = outputs[0]
    if len(sources[first]) > 1:
        last = records[first]
        records.append(CallRecord("sum", last.function, (first,), last.shape))
        first = len(records) - 1
        sources.append((first,))
    return sources, [first, *outputs[1:]]


def _union(sources: list[tuple[int, ...]], inputs: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(source for i in inputs for source in sources[i]))


def prune(records: list[CallRecord], sources: list[tuple[int, ...]], outputs: list[int]) -> list[int]:
    """Returns the records of the nodes that reach an output, in the order of their calls, but the first output last.

    If further outputs are computed from the first, the order stays that of the calls.
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


def _check_parameters_used(records: list[CallRecord], kept: list[int], snapshot: ModuleSnapshot) -> None:
    if not any(records[i].weight >= 0 or records[i].bias >= 0 for i in kept):
        shown = ", ".join(repr(name) for name in snapshot.names[:5])
        raise GraphError(f"no parameter reaches the output (the module has {shown}): there is nothing to predict")


def number_nodes(
    records: list[CallRecord], sources: list[tuple[int, ...]], kept: list[int], snapshot: ModuleSnapshot
) -> NodeTable:
    """Makes nodes and edges in the order of the calls; a weight and its bias become two nodes, the weight first."""
    table = NodeTable()
    for i in kept:
        record = records[i]
        node = table.first[i] = len(table.nodes)
        output_shape = _without_batch(record.shape)
        table.nodes.append(Node(record.kind, _node_name(record, snapshot), record.node_shape, output_shape))
        if record.kind in KERNEL_OPS and record.bias >= 0:
            assert record.node_shape is not None  # the rules give every convolution its shape
            path = snapshot.names[record.bias].rpartition(".")[0]
            table.nodes.append(Node("bias", path, (record.node_shape[0], 1, 1, 1), output_shape))
            table.edges.append((node, node + 1))
        table.last[i] = len(table.nodes) - 1
        table.edges.extend((table.last[source], node) for source in _union(sources, record.inputs))
    return table


def _node_name(record: CallRecord, snapshot: ModuleSnapshot) -> str:
    parameter = record.weight if record.weight >= 0 else record.bias
    if parameter < 0:
        return record.function
    name = snapshot.names[parameter]
    return name if record.kind in ("other", "pos_enc") else name.rpartition(".")[0]


def _without_batch(shape: Shape) -> Shape:
    """Returns the shape of the activation of one image, from that of a batch of two images.

    If the batch dimension is merged with others (the windows of Swin), the first size is halved.
    """
    if shape and shape[0] % 2 == 0:
        return shape[1:] if shape[0] == 2 else (shape[0] // 2, *shape[1:])
    if len(shape) > 1 and shape[1] == 2:
        return (shape[0], *shape[2:])
    return shape


def classification_layers(records: list[CallRecord], outputs: list[int]) -> set[int]:
    """Returns the records of classification layers.

    These are linear layers or 1x1 convolutions followed only by reshapes and a bias. An output that is the sum of
    several such layers (of a class token and a distillation token) has them all. Further outputs count if they have as
    many classes as the first.
    """
    classes = _num_outputs(records[outputs[0]])
    found: set[int] = set()
    for output in outputs:
        if records[output].shape and _num_outputs(records[output]) == classes:
            found |= _linear_before(records, output) or set()
    return found


def _linear_before(records: list[CallRecord], output: int) -> set[int] | None:
    """Returns the linear layers and biases of which a record is a reshape or a sum; None if it is anything else."""
    record = records[output]
    if record.kind == "conv":
        is_linear = record.node_shape is not None and record.node_shape[2:] == (1, 1)
        return {output} if is_linear else None
    inputs = [i for i in record.inputs if records[i].kind != PARAMETER]
    reshaped = record.kind == PASS and record.function in functions.AFTER_CLASSIFIER and len(inputs) == 1
    if not inputs or not (reshaped or record.kind in ("sum", "bias")):
        return None
    found: set[int] = {output} if record.kind == "bias" else set()
    for i in inputs:
        layers = _linear_before(records, i)
        if layers is None:
            return None
        found |= layers
    return found


def assign_parameters(
    records: list[CallRecord], kept: list[int], table: NodeTable, snapshot: ModuleSnapshot, classifiers: set[int]
) -> tuple[Parameter, ...]:
    """Returns every parameter with its node and role; a shared one belongs to the node that uses it first.

    Args:
        classifiers: The records of classification layers.
    """
    assigned: dict[int, Parameter] = {}
    for i in kept:
        record = records[i]
        is_norm = record.kind in ("bn", "ln")
        weight_role: Role = record.role or (
            "norm_weight" if is_norm else "class_weight" if i in classifiers else "weight"
        )
        bias_role: Role = "norm_bias" if is_norm else "class_bias" if i in classifiers else "bias"
        for index, node, role in (
            (record.weight, table.first[i], weight_role),
            (record.bias, table.last[i], bias_role),
        ):
            if index >= 0 and index not in assigned:
                assigned[index] = Parameter(snapshot.names[index], snapshot.shapes[index], node, role)
    return tuple(sorted(assigned.values(), key=lambda parameter: parameter.node))
