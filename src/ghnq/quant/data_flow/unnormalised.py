"""Convolutions whose output is not normalised."""

from __future__ import annotations

from torch import nn

from ghnq.quant.data_flow.recording import Recording
from ghnq.quant.quantizable import is_quantizable
from ghnq.torch_compat import ConvNd

_NORM_FUNCTIONS = frozenset(
    ["batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm", "local_response_norm", "normalize"]
)


def find_unnormalised_convolutions(recording: Recording) -> tuple[str, ...]:
    """Returns the names of the convolutions that run once and whose output reaches no norm, in module order.

    An output reaches a norm if it does so, through whatever functions, before another convolution or linear layer.
    A convolution whose output is the input of another layer, and of nothing else, is left out: the two are one linear
    map, and the output of the second one counts.
    """
    output_of: dict[int, nn.Module] = {}  # value -> the convolution whose output it is
    computed_from: dict[int, frozenset[nn.Module]] = {}  # value -> the convolutions whose output it is computed from
    normalised: set[nn.Module] = set()
    inputs_of_layers: set[nn.Module] = set()
    inputs_of_functions: set[nn.Module] = set()
    for operation in recording.operations:
        sources = frozenset().union(*(computed_from.get(value, frozenset()) for value in operation.inputs))
        direct = {output_of[value] for value in operation.inputs if value in output_of}
        module = operation.module
        if module is None:
            inputs_of_functions |= direct
            if operation.function in _NORM_FUNCTIONS:
                normalised |= sources
            elif sources:
                computed_from |= dict.fromkeys(operation.outputs, sources)
        elif not is_quantizable(module):
            normalised |= sources
        else:
            inputs_of_layers |= direct
            if isinstance(module, ConvNd):
                computed_from |= dict.fromkeys(operation.outputs, frozenset([module]))
                output_of |= dict.fromkeys(operation.outputs, module)
    left_out = normalised | (inputs_of_layers - inputs_of_functions)
    return tuple(
        name
        for name, module in recording.network.named_modules()
        if name
        and isinstance(module, ConvNd)
        and is_quantizable(module)
        and recording.runs[module] == 1
        and module not in left_out
    )
