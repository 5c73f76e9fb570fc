"""One look at the data flow of a network, for folding, equalization, standardisation and the choice of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ghnq.quant.data_flow.channel_relations import ChannelRelation, find_channel_relations
from ghnq.quant.data_flow.norm_pairs import NormPair, find_norm_pairs
from ghnq.quant.data_flow.recording import Recording, record
from ghnq.quant.data_flow.unnormalised import find_unnormalised_convolutions
from ghnq.quant.quantizable import is_quantizable, reason_not_quantizable
from ghnq.torch_compat import FUSED_LAYER_FUNCTIONS

_FUNCTIONS_WITH_WEIGHTS = frozenset(
    [f"conv{n}d" for n in (1, 2, 3)]
    + [f"conv_transpose{n}d" for n in (1, 2, 3)]
    + ["linear", "bilinear", "multi_head_attention_forward", *FUSED_LAYER_FUNCTIONS]
    + ["lstm", "gru", "rnn_tanh", "rnn_relu"]
)


_PRODUCTS = frozenset({
    "__matmul__", "__rmatmul__", "addbmm", "addmm", "addmv", "baddbmm", "bmm", "einsum", "inner", "matmul", "mm", "mv",
    "tensordot",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DataFlow:
    """What one run of a network showed. Modules go by their names.

    Attributes:
        layer_runs: How often each quantizable layer ran, in module order.
        norm_pairs: Layers and the batch norms that can be folded into them.
        channel_relations: Layers that can be equalized with each other.
        unnormalised: Convolutions whose output reaches no norm.
        unquantizable: Functions with weights that were called outside of quantizable layers, and by which module.
        products: Products with parameters that are no layers, and by which module; they stay in float.
        mistakes: Warnings about what the network does in eval mode.
    """

    layer_runs: Mapping[str, int]
    norm_pairs: tuple[NormPair, ...]
    channel_relations: tuple[ChannelRelation, ...]
    unnormalised: tuple[str, ...]
    unquantizable: tuple[str, ...]
    products: tuple[str, ...]
    mistakes: tuple[str, ...]


def observe_data_flow(network: nn.Module, images_BCHW: Tensor) -> DataFlow:
    """Runs a network once in eval mode on at least two images; the network is left as it was."""
    recording = record(network, images_BCHW)
    norm_pairs = find_norm_pairs(recording)
    return DataFlow(
        layer_runs={n: recording.runs[layer] for n, layer in network.named_modules() if is_quantizable(layer)},
        norm_pairs=norm_pairs,
        channel_relations=find_channel_relations(recording, norm_pairs),
        unnormalised=find_unnormalised_convolutions(recording),
        unquantizable=_unquantizable(recording),
        products=_products(recording),
        mistakes=tuple(recording.mistakes.texts()),
    )


def _unquantizable(recording: Recording) -> tuple[str, ...]:
    modules = {repr(name): module for name, module in recording.network.named_modules()}
    found: dict[str, None] = {}
    for call in recording.operations:
        if call.function in _FUNCTIONS_WITH_WEIGHTS:
            reason = reason_not_quantizable(modules[call.caller]) if call.caller in modules else ""
            found[f"{call.function} in {call.caller}" + (f": {reason}" if reason else "")] = None
    return tuple(found)


def _products(recording: Recording) -> tuple[str, ...]:
    """Returns the products of an activation and a matrix that is a parameter, or is computed from parameters alone."""
    made_of = dict(recording.parameters)
    found: dict[str, None] = {}
    for operation in recording.operations:
        if operation.module is not None:
            continue
        own = [made_of[value] for value in operation.inputs if value in made_of]
        if own and len(own) == len(operation.inputs):
            made_of |= {value: own[0] for value in operation.outputs if value not in made_of}
        elif own and operation.function in _PRODUCTS:
            matrices = [made_of[v] for v in operation.inputs if v in made_of and len(recording.shapes[v]) > 1]
            found |= {f"`{operation.function}` with {name!r} in {operation.caller}": None for name in matrices}
    return tuple(found)
