"""Batch norms that can be folded: the norm is the only consumer of a layer's output."""

from __future__ import annotations

from collections import Counter, defaultdict

import torch
from torch import nn

from ghnq.quant.data_flow.recording import Recording, is_plain_batch_norm
from ghnq.quant.quantizable import has_hooks, is_quantizable
from ghnq.quant.weight_layout import output_channels
from ghnq.torch_compat import BatchNorm

NormPair = tuple[str, str]
"""Names of a layer and of the batch norm that can be folded into it."""


def find_norm_pairs(recording: Recording) -> tuple[NormPair, ...]:
    """Returns the pairs of layer and batch norm that can be folded, in the order in which the norms ran.

    A pair is reported if the input of the norm is the output of the layer, nothing else uses that tensor (the output of
    the network included), both run exactly once, their channels agree, and the user has put no hook on either.
    """
    layer_of: dict[int, nn.Module] = {}  # value -> the layer whose output it is
    norm_inputs: defaultdict[nn.Module, list[int]] = defaultdict(list)
    norm_uses: Counter[int] = Counter()
    other_uses = Counter(recording.results)
    for operation in recording.operations:
        used = [value for value in operation.inputs if value in layer_of and value not in operation.outputs]
        if isinstance(operation.module, BatchNorm):
            norm_inputs[operation.module] += used
            norm_uses.update(used)
        elif operation.outputs:
            other_uses.update(used)
        if operation.module is not None and is_quantizable(operation.module):
            layer_of |= dict.fromkeys(operation.outputs, operation.module)
    names, pairs = recording.names(), []
    for norm, values in norm_inputs.items():
        if len(values) != 1 or norm_uses[values[0]] != 1 or other_uses[values[0]]:
            continue
        layer = layer_of[values[0]]
        once = recording.runs[layer] == recording.runs[norm] == 1
        if once and is_foldable(layer, norm, recording.shapes[values[0]]):
            pairs.append((names[layer], names[norm]))
    return tuple(pairs)


def is_foldable(layer: nn.Module, norm: nn.Module, output_shape: torch.Size | None = None) -> bool:
    """Returns whether a norm that is applied to a layer's output scales and shifts the layer's output channels.

    Without the shape of the layer's output, a linear layer is assumed to have an output of two dimensions.
    """
    if not is_quantizable(layer) or not is_plain_batch_norm(norm) or has_hooks(layer) or has_hooks(norm):
        return False
    if output_shape is not None and isinstance(layer, nn.Linear) and len(output_shape) != 2:
        return False  # The channels of a batch norm are dimension 1, those of a linear layer the last one.
    return output_channels(layer) == norm.num_features
