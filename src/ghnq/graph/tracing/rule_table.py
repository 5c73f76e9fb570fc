"""The table of the rules by the names of torch functions, and when a rule applies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ghnq.eval_calls import WATCHED
from ghnq.graph.tracing import attention_rules as attention
from ghnq.graph.tracing import function_names as functions
from ghnq.graph.tracing import output_shapes as shapes
from ghnq.graph.tracing import rules
from ghnq.graph.tracing.call_record import PARAMETER, PASS, Args, Kwargs, TorchFunction
from ghnq.graph.tracing.recorder import Handler, Recorder, argument_tensors

Rule = Callable[..., object]


def _if_activation(name: str, rule: Rule) -> Handler:
    """Applies the rule if the first argument is an activation, not a constant or a parameter."""

    def handler(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
        found = recorder.record_indices.get(id(args[0] if args else kwargs.get("input")))
        if found is None or recorder.records[found].kind == PARAMETER:
            return recorder.call_without_rule(func, name, args, kwargs)
        return rule(recorder, name, *args, **kwargs)

    return handler


def _any_activation(name: str, rule: Rule) -> Handler:
    """Applies the rule if one of the first three arguments (queries, keys, values) is an activation."""

    def handler(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
        tensors = (*args[:3], *(kwargs.get(key) for key in ("query", "key", "value")))
        found = [
            i for tensor in tensors if isinstance(tensor, Tensor) and (i := recorder.find_record(tensor)) is not None
        ]
        if all(recorder.records[i].kind == PARAMETER for i in found):
            return recorder.call_without_rule(func, name, args, kwargs)
        return rule(recorder, name, *args, **kwargs)

    return handler


def _matrix_product(name: str) -> Handler:
    """A matrix product, which may be an attention."""

    def handler(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
        return attention.matrix_product(recorder, func, name, args, kwargs)

    return handler


def _unary(name: str) -> Handler:
    """An elementwise function; there is no rule if another argument is a tensor too (`clamp(x, min=tensor)`)."""

    def handler(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
        found = recorder.record_indices.get(id(args[0] if args else kwargs.get("input")))
        if found is None or recorder.records[found].kind == PARAMETER or "dtype" in kwargs:
            return recorder.call_without_rule(func, name, args, kwargs)
        for other in (*args[1:], *kwargs.values()):
            if isinstance(other, Tensor) and other is not kwargs.get("input"):
                return recorder.call_without_rule(func, name, args, kwargs)
        return rules.elementwise(recorder, name, *args, **kwargs)

    return handler


def _binary(name: str, kind: str) -> Handler:
    """A sum or product: a node if both arguments are activations; there is no rule if one is a parameter."""
    base = name if name.startswith("__") else name.rstrip("_")
    writes = name.endswith("_") and name not in ("__radd__", "__rmul__")

    def handler(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
        left = args[0] if args else kwargs.get("input")
        right = args[1] if len(args) > 1 else kwargs.get("other")
        u, v = recorder.record_indices.get(id(left)), recorder.record_indices.get(id(right))
        if u is None and writes and id(left) in recorder.snapshot.buffers and isinstance(right, int | float):
            return left  # a counter of batches is not changed
        if u is None or "out" in kwargs or not isinstance(left, Tensor) or recorder.records[u].kind == PARAMETER:
            return recorder.call_without_rule(func, name, args, kwargs)
        if isinstance(right, Tensor):
            if v is None or recorder.records[v].kind == PARAMETER:
                return recorder.call_without_rule(func, name, args, kwargs)
            shape = shapes.broadcast(tuple(left.shape), tuple(right.shape))
            dtype = left.dtype if left.dtype is right.dtype else torch.result_type(left, right)
            out = recorder.emit(kind, base, (u, v), shape, dtype)
        elif left.is_floating_point() and isinstance(right, int | float):
            out = recorder.emit(PASS, base, (u,), tuple(left.shape), left.dtype)
        else:
            return recorder.call_without_rule(func, name, args, kwargs)
        return _in_place(recorder, left, out) if writes else out

    return handler


def _in_place(recorder: Recorder, target: Tensor, out: Tensor) -> Tensor:
    if target.shape != out.shape:
        raise ValueError(f"an in-place result of shape {tuple(out.shape)} does not fit into {tuple(target.shape)}")
    recorder.overwrite(target, recorder.record_indices[id(out)])
    return target


_CONSTANT_PAD = _if_activation("pad", rules.pad)


def _pad(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    if mode == "constant":
        return _CONSTANT_PAD(recorder, func, args, kwargs)
    return recorder.call_without_rule(func, "pad", args, kwargs)


def _cat(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
    tensors = args[0] if args else kwargs.get("tensors", ())
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    found = [recorder.find_record(tensor) for tensor in tensors]
    inputs = tuple(i for i in found if i is not None)
    if not inputs or any(recorder.records[i].kind == PARAMETER for i in inputs) or not isinstance(dim, int):
        return recorder.call_without_rule(func, "cat", args, kwargs)
    shape = shapes.concat([tuple(tensor.shape) for tensor in tensors], dim)
    dtype = next(t.dtype for t, i in zip(tensors, found, strict=True) if i is not None)
    return recorder.emit("concat", "cat", inputs, shape, dtype)


RULES: dict[str, Handler] = {
    **{name: _if_activation(name, rules.conv) for name in ("conv1d", "conv2d")},
    **{name: _if_activation(name, rules.conv_transpose) for name in ("conv_transpose1d", "conv_transpose2d")},
    "linear": _if_activation("linear", rules.linear),
    "batch_norm": _if_activation("batch_norm", rules.batch_norm),
    "instance_norm": _if_activation("instance_norm", rules.instance_norm),
    "group_norm": _if_activation("group_norm", rules.group_norm),
    "layer_norm": _if_activation("layer_norm", rules.layer_norm),
    "rms_norm": _if_activation("rms_norm", rules.layer_norm),
    **{name: _if_activation(name, rules.max_pool) for name in ("max_pool1d", "max_pool2d", "max_pool2d_with_indices")},
    **{name: _if_activation(name, rules.avg_pool) for name in ("avg_pool1d", "avg_pool2d")},
    **{name: _if_activation(name, rules.adaptive_avg_pool) for name in ("adaptive_avg_pool1d", "adaptive_avg_pool2d")},
    **{name: _if_activation(name, rules.adaptive_max_pool) for name in ("adaptive_max_pool1d", "adaptive_max_pool2d")},
    "mean": _if_activation("mean", rules.mean),
    "prelu": _if_activation("prelu", rules.prelu),
    "scaled_dot_product_attention": _any_activation("scaled_dot_product_attention", attention.scaled_dot_product),
    "multi_head_attention_forward": _any_activation("multi_head_attention_forward", attention.multi_head),
    **{name: _matrix_product(name) for name in ("matmul", "bmm", "__matmul__", "einsum")},
    **{name: _unary(name) for base in functions.ELEMENTWISE for name in (base, base + "_")},
    **{name: _binary(name, "sum") for name in ("add", "add_", "__iadd__", "__radd__")},
    **{name: _binary(name, "cse") for name in ("mul", "mul_", "multiply", "__imul__", "__rmul__")},
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "pad": _pad,
    **{
        name: _if_activation(name, rules.to)
        for name in ("to", "type", "type_as", "float", "half", "double", "bfloat16", "cpu", "cuda")
    },
}

# Functions whose signature differs from that of another function with the same name.
RULES_BY_FUNCTION: dict[TorchFunction, Handler] = {
    torch.batch_norm: _if_activation("batch_norm", rules.with_swapped_statistics(rules.batch_norm)),
    torch.instance_norm: _if_activation("instance_norm", rules.with_swapped_statistics(rules.instance_norm)),
}

_TENSOR_PROPERTIES = frozenset({"T", "H", "mT", "mH", "data", "real", "imag"})


class HandlerTable(dict[TorchFunction, Handler]):
    """The handler of each torch function, found by the name of the function when it is first called."""

    def __missing__(self, func: TorchFunction) -> Handler:
        handler = self[func] = _find_handler(func)
        return handler


HANDLERS = HandlerTable()


def _find_handler(func: TorchFunction) -> Handler:
    name = getattr(func, "__name__", str(func)).partition(".")[0]  # the name of an operator ends in its overload
    if name in ("__get__", "__set__", "__delete__"):
        name = getattr(getattr(func, "__self__", None), "__name__", "")
        if name not in _TENSOR_PROPERTIES:
            return _call
    if name in functions.QUERIES:
        return _call
    rule = RULES_BY_FUNCTION.get(func) or RULES.get(name) or _without_rule(name)
    return _watching(name, rule) if name.rstrip("_") in WATCHED else rule


def _without_rule(name: str) -> Handler:
    def handler(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
        return recorder.call_without_rule(func, name, args, kwargs)

    return handler


def _watching(name: str, rule: Handler) -> Handler:
    """Notes calls that are likely mistakes in eval mode."""

    def handler(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
        found = (recorder.record_indices.get(id(tensor)) for tensor in argument_tensors((args, kwargs)))
        on_images = any(i is not None and recorder.records[i].kind != PARAMETER for i in found)
        recorder.mistakes.note_call(name, args, kwargs, on_images=on_images)
        return rule(recorder, func, args, kwargs)

    return handler


def _call(recorder: Recorder, func: TorchFunction, args: Args, kwargs: Kwargs) -> object:
    return func(*args, **kwargs)
