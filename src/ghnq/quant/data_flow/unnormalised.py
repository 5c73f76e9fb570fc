"""Convolutions whose output is not normalised."""

from __future__ import annotations

from torch import nn

from ghnq.quant.data_flow.recording import Operation, Recording, is_plain_batch_norm
from ghnq.quant.quantizable import has_hooks, is_quantizable
from ghnq.torch_compat import ConvNd

_NORM_FUNCTIONS = frozenset(
    ["batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm", "local_response_norm", "normalize"]
)


def find_unnormalised_convolutions(recording: Recording) -> tuple[str, ...]:
    """Returns the names of the convolutions that run once and whose output reaches no norm, in module order.

    An output reaches a norm if it does so, through any functions, before another convolution or linear layer. A
    convolution whose output is the input of another layer, and of nothing else, is left out: the two are one linear
    map, and the output of the second one counts. Convolutions with hooks of the user are left out as well.
    """
    search = _Search()
    for operation in recording.operations:
        search.visit(operation)
    left_out = search.normalised | (search.inputs_of_layers - search.inputs_of_functions)
    return tuple(
        name
        for name, module in recording.network.named_modules()
        if name
        and _is_convolution(module)
        and recording.runs[module] == 1
        and module not in left_out
        and not has_hooks(module)
    )


class _Search:
    def __init__(self) -> None:
        self.output_of: dict[int, nn.Module] = {}  # value -> the convolution whose output it is
        self.computed_from: dict[int, frozenset[nn.Module]] = {}  # value -> convolutions whose output it depends on
        self.normalised: set[nn.Module] = set()
        self.inputs_of_layers: set[nn.Module] = set()
        self.inputs_of_functions: set[nn.Module] = set()

    def visit(self, operation: Operation) -> None:
        """Follows the outputs of convolutions through one operation."""
        module = operation.module
        sources = frozenset().union(*(self.computed_from.get(value, frozenset()) for value in operation.inputs))
        direct = {self.output_of[value] for value in operation.inputs if value in self.output_of}
        if module is None:
            self.inputs_of_functions |= direct
            if operation.function in _NORM_FUNCTIONS:
                self.normalised |= sources
            elif sources:
                self.computed_from |= dict.fromkeys(operation.outputs, sources)
        elif is_plain_batch_norm(module):
            self.normalised |= sources
        else:
            self.inputs_of_layers |= direct
            if _is_convolution(module):
                self.computed_from |= dict.fromkeys(operation.outputs, frozenset([module]))
                self.output_of |= dict.fromkeys(operation.outputs, module)


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, ConvNd) and is_quantizable(module)
