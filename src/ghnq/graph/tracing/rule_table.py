"""The table from the names of torch functions to their rules, and the choice between a rule and the generic way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ghnq.graph.tracing import attention_rules as attention
from ghnq.graph.tracing import function_names as functions
from ghnq.graph.tracing import output_shapes as shapes
from ghnq.graph.tracing import rules
from ghnq.graph.tracing.call_record import PARAMETER, PASS
from ghnq.graph.tracing.recorder import Handler, Recorder


def _guarded(name: str, rule: Callable[..., Any]) -> Handler:
    """The rule where the first argument is an activation, the generic way where it is a constant or a parameter."""

    def handler(rec: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = rec.values.get(id(args[0] if args else kwargs.get("input")))
        if found is None or rec.records[found].kind == PARAMETER:
            return rec.generic(func, name, args, kwargs)
        return rule(rec, name, *args, **kwargs)

    return handler


def _any_activation(name: str, rule: Callable[..., Any]) -> Handler:
    """The rule where one of the first three arguments (queries, keys, values) is an activation."""

    def handler(rec: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = (*args[:3], *(kwargs.get(key) for key in ("query", "key", "value")))
        found = [i for tensor in tensors if isinstance(tensor, Tensor) and (i := rec.value(tensor)) is not None]
        if all(rec.records[i].kind == PARAMETER for i in found):
            return rec.generic(func, name, args, kwargs)
        return rule(rec, name, *args, **kwargs)

    return handler


def _product(name: str) -> Handler:
    def handler(rec: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return attention.product(rec, func, name, args, kwargs)

    return handler


def _unary(name: str) -> Handler:
    """An elementwise function; the generic way where another tensor goes in too (`clamp(x, min=tensor)`)."""

    def handler(rec: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = rec.values.get(id(args[0] if args else kwargs.get("input")))
        if found is None or rec.records[found].kind == PARAMETER or "dtype" in kwargs:
            return rec.generic(func, name, args, kwargs)
        for other in (*args[1:], *kwargs.values()):
            if isinstance(other, Tensor) and other is not kwargs.get("input"):
                return rec.generic(func, name, args, kwargs)
        return rules.elementwise(rec, name, *args, **kwargs)

    return handler


def _binary(name: str, kind: str) -> Handler:
    """A sum or product: a node where two different activations meet, otherwise the generic way."""
    base = name if name.startswith("__") else name.rstrip("_")
    writes = name.endswith("_") and name not in ("__radd__", "__rmul__")

    def handler(rec: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        a = args[0] if args else kwargs.get("input")
        b = args[1] if len(args) > 1 else kwargs.get("other")
        u, v = rec.values.get(id(a)), rec.values.get(id(b))
        if u is None and writes and id(a) in rec.survey.buffers and isinstance(b, int | float):
            return a  # a counter of batches: not touched
        if u is None or "out" in kwargs or not isinstance(a, Tensor) or rec.records[u].kind == PARAMETER:
            return rec.generic(func, name, args, kwargs)
        if isinstance(b, Tensor):
            if v is None or rec.records[v].kind == PARAMETER:
                return rec.generic(func, name, args, kwargs)
            shape = shapes.broadcast(tuple(a.shape), tuple(b.shape))
            dtype = a.dtype if a.dtype is b.dtype else torch.result_type(a, b)
            out = rec.emit(kind, base, (u, v), shape, dtype)
        elif a.is_floating_point() and isinstance(b, int | float):
            out = rec.emit(PASS, base, (u,), tuple(a.shape), a.dtype)
        else:
            return rec.generic(func, name, args, kwargs)
        return _in_place(rec, a, out) if writes else out

    return handler


def _in_place(rec: Recorder, target: Tensor, out: Tensor) -> Tensor:
    if target.shape != out.shape:
        raise ValueError(f"an in-place result of shape {tuple(out.shape)} does not fit into {tuple(target.shape)}")
    rec.overwrite(target, rec.values[id(out)])
    return target


def _pad_if_constant(rec: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    return (_CONSTANT_PAD(rec, func, args, kwargs)) if mode == "constant" else rec.generic(func, "pad", args, kwargs)


_CONSTANT_PAD = _guarded("pad", rules.pad)


def _cat(rec: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = args[0] if args else kwargs.get("tensors", ())
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    found = [rec.value(tensor) for tensor in tensors]
    inputs = tuple(i for i in found if i is not None)
    if not inputs or any(rec.records[i].kind == PARAMETER for i in inputs) or not isinstance(dim, int):
        return rec.generic(func, "cat", args, kwargs)
    shape = shapes.concat([tuple(tensor.shape) for tensor in tensors], dim)
    dtype = next(t.dtype for t, i in zip(tensors, found, strict=True) if i is not None)
    return rec.emit("concat", "cat", inputs, shape, dtype)


RULES: dict[str, Handler] = {
    **{name: _guarded(name, rules.conv) for name in ("conv1d", "conv2d")},
    **{name: _guarded(name, rules.conv_transpose) for name in ("conv_transpose1d", "conv_transpose2d")},
    "linear": _guarded("linear", rules.linear),
    "batch_norm": _guarded("batch_norm", rules.batch_norm),
    "instance_norm": _guarded("instance_norm", rules.instance_norm),
    "group_norm": _guarded("group_norm", rules.group_norm),
    "layer_norm": _guarded("layer_norm", rules.layer_norm),
    "rms_norm": _guarded("rms_norm", rules.layer_norm),
    **{n: _guarded(n, rules.max_pool) for n in ("max_pool1d", "max_pool2d", "max_pool2d_with_indices")},
    **{n: _guarded(n, rules.avg_pool) for n in ("avg_pool1d", "avg_pool2d")},
    **{n: _guarded(n, rules.adaptive_avg_pool) for n in ("adaptive_avg_pool1d", "adaptive_avg_pool2d")},
    **{n: _guarded(n, rules.adaptive_max_pool) for n in ("adaptive_max_pool1d", "adaptive_max_pool2d")},
    "mean": _guarded("mean", rules.mean),
    "prelu": _guarded("prelu", rules.prelu),
    "scaled_dot_product_attention": _any_activation("scaled_dot_product_attention", attention.scaled_dot_product),
    "multi_head_attention_forward": _any_activation("multi_head_attention_forward", attention.multi_head),
    **{name: _product(name) for name in ("matmul", "bmm", "__matmul__", "einsum")},
    **{name: _unary(name) for base in functions.ELEMENTWISE for name in (base, base + "_")},
    **{name: _binary(name, "sum") for name in ("add", "add_", "__iadd__", "__radd__")},
    **{name: _binary(name, "cse") for name in ("mul", "mul_", "multiply", "__imul__", "__rmul__")},
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "pad": _pad_if_constant,
    **{
        n: _guarded(n, rules.to)
        for n in ("to", "type", "type_as", "float", "half", "double", "bfloat16", "cpu", "cuda")
    },
}

# Where two functions of one name differ in their signature.
RULES_BY_FUNCTION: dict[Any, Handler] = {
    torch.batch_norm: _guarded("batch_norm", rules.swapped(rules.batch_norm)),
    torch.instance_norm: _guarded("instance_norm", rules.swapped(rules.instance_norm)),
}
