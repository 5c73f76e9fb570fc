"""Rules for attention, fused (`scaled_dot_product_attention`, `nn.MultiheadAttention`) or in single operations.

All have GHN-2's form: linear layers to queries, keys and values, one `msa` node, and an output projection. A learned
bias of the scores, such as Swin's table of relative positions, is a position embedding in front of the `msa`.
"""

from __future__ import annotations

from torch import Tensor

from ghnq.graph.tracing import function_names as functions
from ghnq.graph.tracing.call_record import PARAMETER, PASS, Args, Kwargs, TorchFunction
from ghnq.graph.tracing.recorder import Recorder
from ghnq.graph.tracing.rules import linear

_AFTER_SOFTMAX = functions.RESHAPES | functions.ELEMENTWISE | {"to", "type_as", "float", "add", "sub"}


def scaled_dot_product(
    recorder: Recorder, name: str, /, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    *rest: object, **options: object,
) -> Tensor:  # fmt: skip
    out = (*query.shape[:-1], value.shape[-1])
    scores = _records_of(recorder, query, key, attn_mask)
    inputs = (*recorder.add_parameter_nodes("add", scores, out), *_records_of(recorder, value))
    return recorder.emit("msa", name, tuple(dict.fromkeys(inputs)), out, query.dtype)


def multi_head(
    recorder: Recorder, name: str, /, query: Tensor, key: Tensor, value: Tensor,
    embed_dim_to_check: int, num_heads: int, in_proj_weight: Tensor | None, in_proj_bias: Tensor | None,
    bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None, training: bool = True,
    key_padding_mask: Tensor | None = None, need_weights: bool = True, attn_mask: Tensor | None = None,
    *rest: object, q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, average_attn_weights: bool = True, **options: object,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """`nn.MultiheadAttention`: one linear layer for queries, keys and values, or three where their widths differ."""
    projected: list[Tensor] = []
    extras = [bias_k, bias_v, attn_mask]
    if in_proj_weight is not None:
        together = _merged(recorder, name, query, query, key, value)
        projected.append(linear(recorder, "linear", together, in_proj_weight, in_proj_bias))
    else:
        extras.append(in_proj_bias)
        for x, w in zip((query, key, value), (q_proj_weight, k_proj_weight, v_proj_weight), strict=True):
            assert w is not None  # PyTorch has either one weight or three
            if all(recorder.records[i].kind == PARAMETER for i in _records_of(recorder, x)):
                extras += [x, w]
            else:
                projected.append(linear(recorder, "linear", x, w))
    inputs = recorder.add_parameter_nodes(name, _records_of(recorder, *projected, *extras), tuple(query.shape))
    mixed = recorder.emit("msa", name, inputs, tuple(query.shape), query.dtype)
    out = linear(recorder, "linear", mixed, out_proj_weight, out_proj_bias)
    if not need_weights:
        return out, None
    batch = query.shape[1:-1]
    heads = () if average_attn_weights else (num_heads,)
    return out, recorder.emit(PASS, name, inputs, (*batch, *heads, query.shape[0], key.shape[0]), query.dtype)


def matrix_product(recorder: Recorder, func: TorchFunction, name: str, args: Args, kwargs: Kwargs) -> object:
    """A matrix product; it is the `msa` node if both factors are activations and one comes from a softmax."""
    result = recorder.call_without_rule(func, name, args, kwargs)
    factors = [i for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor) for i in _records_of(recorder, arg)]
    activations = [i for i in factors if recorder.records[i].kind != PARAMETER]
    if len(activations) == 2 and any(_is_softmax(recorder, i) for i in activations) and isinstance(result, Tensor):
        recorder.records[recorder.record_indices[id(result)]].kind = "msa"
    return result


def _is_softmax(recorder: Recorder, i: int) -> bool:
    """Returns whether a record is a softmax, or dropout, reshapes and the like of a softmax."""
    record = recorder.records[i]
    while record.kind == PASS and record.function != "softmax" and record.function in _AFTER_SOFTMAX:
        if len(record.inputs) != 1:
            return False
        record = recorder.records[record.inputs[0]]
    return record.kind == PASS and record.function == "softmax"


def _records_of(recorder: Recorder, *tensors: Tensor | None) -> tuple[int, ...]:
    """Returns the records of the tensors that are not constants."""
    return tuple(dict.fromkeys(i for tensor in tensors if (i := recorder.find_record(tensor)) is not None))


def _merged(recorder: Recorder, name: str, like: Tensor, *tensors: Tensor) -> Tensor:
    """Returns a tensor with the shape of `like` that depends on all tensors; parameters among them become nodes."""
    inputs = recorder.add_parameter_nodes(name, _records_of(recorder, *tensors), tuple(like.shape))
    return recorder.emit(PASS, name, inputs, tuple(like.shape), like.dtype)
