"""Rules for attention, fused (`scaled_dot_product_attention`, `nn.MultiheadAttention`) or written out by hand.

All become what GHN-2 knows: linear layers to queries, keys and values, one `msa` node, a linear layer out. A learned
bias of the scores, such as Swin's table of relative positions, is a position embedding in front of the `msa`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ghnq.graph.tracing import function_names as functions
from ghnq.graph.tracing.call_record import PARAMETER, PASS
from ghnq.graph.tracing.recorder import Recorder
from ghnq.graph.tracing.rules import linear

_BETWEEN = functions.RESHAPES | functions.ELEMENTWISE | {"to", "type_as", "float", "add", "sub"}


def scaled_dot_product(
    rec: Recorder, name: str, /, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    *rest: Any, **options: Any,
) -> Tensor:  # fmt: skip
    out = (*query.shape[:-1], value.shape[-1])
    scores = _found(rec, query, key, attn_mask)
    inputs = (*rec.own("add", scores, out), *_found(rec, value))
    return rec.emit("msa", name, tuple(dict.fromkeys(inputs)), out, query.dtype)


def multi_head(
    rec: Recorder, name: str, /, query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None, training: bool = True,
    key_padding_mask: Tensor | None = None, need_weights: bool = True, attn_mask: Tensor | None = None,
    *rest: Any, q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, average_attn_weights: bool = True, **options: Any,
) -> Any:  # fmt: skip
    """`nn.MultiheadAttention`: one linear layer for queries, keys and values, or three where their widths differ."""
    projected: list[Tensor] = []
    extras = [bias_k, bias_v, attn_mask]
    if in_proj_weight is not None:
        together = _merged(rec, name, query, query, key, value)
        projected.append(linear(rec, "linear", together, in_proj_weight, in_proj_bias))
    else:
        extras.append(in_proj_bias)
        for x, w in zip((query, key, value), (q_proj_weight, k_proj_weight, v_proj_weight), strict=True):
            assert w is not None  # PyTorch has either one weight or three
            if all(rec.records[i].kind == PARAMETER for i in _found(rec, x)):
                extras += [x, w]
            else:
                projected.append(linear(rec, "linear", x, w))
    inputs = rec.own(name, _found(rec, *projected, *extras), tuple(query.shape))
    mixed = rec.emit("msa", name, inputs, tuple(query.shape), query.dtype)
    out = linear(rec, "linear", mixed, out_proj_weight, out_proj_bias)
    if not need_weights:
        return out, None
    batch = query.shape[1:-1]
    heads = () if average_attn_weights else (num_heads,)
    return out, rec.emit(PASS, name, inputs, (*batch, *heads, query.shape[0], key.shape[0]), query.dtype)


def product(rec: Recorder, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A matrix product, which is the `msa` node where one factor comes from a softmax and both are activations."""
    result = rec.generic(func, name, args, kwargs)
    factors = [i for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor) for i in _found(rec, arg)]
    activations = [i for i in factors if rec.records[i].kind != PARAMETER]
    if len(activations) == 2 and any(_is_softmax(rec, i) for i in activations) and isinstance(result, Tensor):
        rec.records[rec.values[id(result)]].kind = "msa"
    return result


def _is_softmax(rec: Recorder, i: int) -> bool:
    """Whether a value is a softmax, behind which only dropout, reshapes and the like come."""
    record = rec.records[i]
    while record.kind == PASS and record.function != "softmax" and record.function in _BETWEEN:
        if len(record.inputs) != 1:
            return False
        record = rec.records[record.inputs[0]]
    return record.kind == PASS and record.function == "softmax"


def _found(rec: Recorder, *tensors: Tensor | None) -> tuple[int, ...]:
    """The records of those tensors that are no constants."""
    return tuple(dict.fromkeys(i for tensor in tensors if (i := rec.value(tensor)) is not None))


def _merged(rec: Recorder, name: str, like: Tensor, *tensors: Tensor) -> Tensor:
    """One value of the shape of `like` that hangs on all tensors; a learned one (a probe) becomes a node."""
    inputs = rec.own(name, _found(rec, *tensors), tuple(like.shape))
    return rec.emit(PASS, name, inputs, tuple(like.shape), like.dtype)
