"""From a network to one graph of supported operators, by torch.export; every simulation and file is made from it."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, default_decompositions

from ghnq.deploy.graph.decomposer import Decomposer
from ghnq.deploy.graph.decompositions import NOT_DECOMPOSED, RESULT_RULES, decompose
from ghnq.errors import ExportError
from ghnq.network_outputs import take_output
from ghnq.quant.quantized_layers import QuantLayer


def capture(network: nn.Module, images: Tensor) -> fx.GraphModule:
    """Returns the graph of a network in eval mode, for images [B, C, H, W] of one size and any number.

    Quantized layers are plain layers in it, with the weights they compute with. A node's `meta` has `val` (a tensor of
    its shape), `where` (for messages) and, for the weight of a layer, `name`. Of several outputs the logits are
    taken (`ghnq.network_outputs`).

    Raises:
        OutputError: There is no output, or it is not clear which of several is the logits.
        ExportError: The network cannot be captured with a free batch, or has a function that is not supported.
    """
    return _Capture(_export(network, images[:2])).rewrite(type(network).__name__)


class _Capture(Decomposer):
    """Rewrites a program: images are the input, what is independent of them is a constant."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.graph_module)
        self.program = program
        signature = program.graph_signature
        self.tensor_names = {
            **signature.inputs_to_lifted_tensor_constants,
            **signature.inputs_to_buffers,
            **signature.inputs_to_parameters,
        }

    def placeholder_node(self, node: fx.Node) -> fx.Node:
        """Returns the input for the images, a constant for parameters and buffers."""
        name = self.tensor_names.get(node.name)
        if name is None:
            images = self.new.graph.placeholder("images")
            images.meta = {"val": node.meta["val"], "where": "the images"}
            return images
        tensor = self.program.state_dict.get(name)
        constant = self.constant(name, self.program.constants[name] if tensor is None else tensor)
        constant.meta["name"] = name
        return constant

    def call_node(self, node: fx.Node) -> fx.Node | None:
        """Returns the value of a call; None if it is not a tensor."""
        if node.target in RESULT_RULES or not _is_tensor(node):
            return None
        return self._evaluate(node) if self._is_constant(node) else decompose(self, node)

    def output_node(self, node: fx.Node) -> fx.Node:
        """Adds the output and removes what it does not depend on."""
        exported = _only_output(self.program)
        logits: fx.Node = self.env[exported]
        self._check_logits(exported, logits)
        output: fx.Node = self.new.graph.output(logits)
        self.new.graph.eliminate_dead_code()
        return output

    def _is_constant(self, node: fx.Node) -> bool:
        """Returns whether a node is independent of the input; shapes are not, because they depend on the batch."""
        values = [self.env[source] for source in node.all_input_nodes]
        return all(isinstance(value, fx.Node) and value.op == "get_attr" for value in values)

    def _evaluate(self, node: fx.Node) -> fx.Node:
        def tensor(source: fx.Node) -> Tensor:
            return self.new.tensor(self.env[source])

        assert callable(node.target)
        result: Tensor = node.target(*fx.map_arg(node.args, tensor), **fx.map_arg(node.kwargs, tensor))
        return self.constant(node.name, result)

    def _check_logits(self, exported: fx.Node, logits: fx.Node) -> None:
        """Raises ExportError where the result is not one computed row of logits for each image."""
        if logits.op == "placeholder":
            raise ExportError("the network gives its images back as they are, so there is nothing to export")
        images = next(node for node in self.new.graph.nodes if node.op == "placeholder")
        batch, shape = str(images.meta["val"].shape[0]), [str(size) for size in exported.meta["val"].shape]
        if len(shape) != 2 or shape[0] != batch or not shape[1].isdigit():
            came = ", ".join(shape).replace(batch, "batch")
            raise ExportError(f"the network gives results of shape [{came}]; needed are logits [batch, classes]")


def _export(network: nn.Module, images: Tensor) -> ExportedProgram:
    plain = copy.deepcopy(network).eval()
    for module in plain.modules():
        if isinstance(module, QuantLayer):
            module.bits = module.bits._replace(activation=None)  # the layer then does not quantize its input
    take_output(plain, images)
    table = default_decompositions()
    for function in NOT_DECOMPOSED:
        table.pop(function, None)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.export warns of functions of its own that are deprecated
        try:
            program = torch.export.export(
                plain, (images,), dynamic_shapes=({0: Dim("batch", min=1, max=2**20)},), strict=False
            )
            decomposed: ExportedProgram = program.run_decompositions(table)
            return decomposed
        except Exception as error:
            # torch.export has no error class of its own: whatever stops it, the network cannot be captured.
            raise ExportError(
                f"torch.export cannot capture {type(network).__name__} with a free batch size: {_reason(error)}. "
                "Control flow and every shape but the batch must be fixed."
            ) from error


def _reason(error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "Constraints violated" in first:
        # torch.export's own message is about its constraints. `len` of a tensor is a fixed number to it.
        return (
            "its forward is written for certain numbers of images, or branches on their number; "
            "use x.shape[0] instead of len(x), and no loop over images"
        )
    return first.strip()


def _only_output(program: ExportedProgram) -> fx.Node:
    """Returns the node of the network's result, beside which a program gives the buffers that it changes."""
    outputs = program.graph.output_node().args[0]
    (name,) = (spec.arg.name for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT")
    assert isinstance(outputs, tuple)
    return next(node for node in outputs if isinstance(node, fx.Node) and node.name == name)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)
