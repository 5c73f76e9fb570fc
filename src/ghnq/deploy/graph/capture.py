"""From a network to one graph of known words, by torch.export: the only source of the simulation and of every file."""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, default_decompositions

from ghnq.deploy.graph.builder import Builder
from ghnq.deploy.graph.decompositions import KEPT, SEVERAL, rule_for
from ghnq.errors import ExportError
from ghnq.quant.quantized_layers import QuantLayer


def capture(network: nn.Module, images: Tensor) -> fx.GraphModule:
    """Returns the graph of a network in eval mode, for images [B, C, H, W] of one size and any number.

    Quantized layers stand in it as plain layers with the weights they hold. A node's `meta` has `val` (a tensor of its
    shape), `where` (for messages) and, for a layer, `layer`, its module's name. Of several outputs the first is taken.

    Raises:
        ExportError: the network cannot be captured with a free batch, or holds a function that has no word.
    """
    program = _exported(network, images[:2])
    builder = Builder()
    _add_inputs(builder, program)
    for node in program.graph.nodes:
        if node.op == "call_function" and node.target not in SEVERAL and _gives_tensor(node):
            builder.now = node
            builder.at[node] = _folded(builder, node) if _is_constant(builder, node) else rule_for(node)(builder, node)
    logits = _first_output(program)
    _check_logits(logits, builder)
    builder.graph.output(builder.at[logits])
    builder.graph.eliminate_dead_code()
    return module_of(builder.graph, builder.constants, network)


def module_of(graph: fx.Graph, tensors: dict[str, Tensor], network: nn.Module | None = None) -> fx.GraphModule:
    """A module that runs `graph`, with `tensors` as the buffers its `get_attr` nodes name."""
    root = nn.Module()
    used = {node.target for node in graph.nodes if node.op == "get_attr"}
    for name, tensor in tensors.items():
        if name in used:
            root.register_buffer(name, tensor)
    module = fx.GraphModule(root, graph, type(network).__name__ if network is not None else "Graph")
    return module.eval()


def _exported(network: nn.Module, images: Tensor) -> ExportedProgram:
    plain = copy.deepcopy(network).eval()
    for module in plain.modules():
        if isinstance(module, QuantLayer):
            module.bits = module.bits._replace(activation=None)  # the layer then leaves its input alone
    table: Any = default_decompositions()
    for function in KEPT:
        table.pop(function, None)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.export warns of its own deprecated ways
        try:
            program: ExportedProgram = torch.export.export(
                plain, (images,), dynamic_shapes=({0: Dim("batch", min=1, max=2**20)},), strict=False
            )
            program = program.run_decompositions(table)
        except Exception as error:
            # torch.export has no error class of its own: whatever stops it, the network cannot be captured.
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            if "Constraints violated" in first:
                # What it says there is for those who know torch.export; its `len` gives a fixed number.
                first = (
                    "its forward is written for certain numbers of images, or goes another way for some; "
                    "use x.shape[0] instead of len(x), and no loop over images"
                )
            raise ExportError(
                f"torch.export cannot capture {type(network).__name__} with a free batch size: {first.strip()}. "
                "Control flow and every shape but the batch must be fixed."
            ) from error
    return program


def _first_output(program: ExportedProgram) -> fx.Node:
    outputs = program.graph.output_node().args[0]
    names = [spec.arg.name for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]
    for node in outputs if isinstance(outputs, tuple) else ():
        if isinstance(node, fx.Node) and names and node.name == names[0] and _gives_tensor(node):
            return node
    raise ExportError("the network's forward returns no tensor first; it must return logits [batch, classes]")


def _check_logits(logits: fx.Node, builder: Builder) -> None:
    """Raises ExportError where the result is not one computed row of logits for each image."""
    if builder.at[logits].op == "placeholder":
        raise ExportError("the network gives its images back as they are, so there is nothing to export")
    images = next(node for node in builder.graph.nodes if node.op == "placeholder")
    batch, shape = str(images.meta["val"].shape[0]), [str(size) for size in logits.meta["val"].shape]
    if len(shape) != 2 or shape[0] != batch or not shape[1].isdigit():
        came = ", ".join(shape).replace(batch, "batch")
        raise ExportError(f"the network gives results of shape [{came}]; needed are logits [batch, classes]")


def _add_inputs(builder: Builder, program: ExportedProgram) -> None:
    """Images become the placeholder, parameters and buffers constants under their own names."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    lifted = signature.inputs_to_lifted_tensor_constants
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name in names or node.name in lifted:
            name = names.get(node.name) or lifted[node.name]
            tensor = program.state_dict.get(name)
            tensor = program.constants[name] if tensor is None else tensor
            builder.at[node] = builder.constant(name, tensor)
            builder.at[node].meta["name"] = name
        else:
            builder.at[node] = builder.graph.placeholder("images")
            builder.at[node].meta = {"val": node.meta["val"], "where": "the images"}


def _gives_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _is_constant(builder: Builder, node: fx.Node) -> bool:
    """Whether a node hangs on no image; shapes count as images, because they hang on the batch."""
    return all(source in builder.at and builder.at[source].op == "get_attr" for source in node.all_input_nodes)


def _folded(builder: Builder, node: fx.Node) -> fx.Node:
    def value(source: fx.Node) -> Tensor:
        return builder.constants[str(builder.at[source].target)]

    args: Any = fx.map_arg(node.args, value)
    kwargs: Any = fx.map_arg(node.kwargs, value)
    assert callable(node.target)
    result: Tensor = node.target(*args, **kwargs)
    return builder.constant(node.name, result)
