"""A mode under which a module runs once on tensors without data, and which writes down what it calls.

Common functions have a rule (`table.py`) that computes the output shape by arithmetic. The others run on PyTorch's meta
device, with a stand-in for every tensor that is not there, so that no weight is copied, read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import GraphError
from . import functions
from .record import INPUT, PARAMETER, PASS, Record, Shape
from .survey import Survey

META = torch.device("meta")
Handler = Callable[["Recorder", Any, tuple[Any, ...], dict[str, Any]], Any]
Rule = Callable[..., Any]


class Recorder(TorchFunctionMode):
    """Records the torch functions called on the input and on the parameters of a surveyed module.

    records: one per call. values: from the id of a tensor to the record that made it (tensors are kept alive, so that
    ids stay theirs). A tensor that is not in `values` is a constant.
    """

    def __init__(self, survey: Survey) -> None:
        super().__init__()
        self.survey = survey
        self.numbers = survey.number
        self.records: list[Record] = []
        self.values: dict[int, int] = {}
        self.alive: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = _HANDLERS.get(func)
        if handler is None:
            handler = _HANDLERS[func] = _resolve(func)
        return handler(self, func, args, kwargs or {})

    def start(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        """The input: a tensor without data."""
        return self.emit(INPUT, "input", (), shape, dtype)

    def emit(
        self,
        kind: str,
        function: str,
        inputs: tuple[int, ...],
        shape: Shape,
        dtype: torch.dtype,
        node_shape: tuple[int, int, int, int] | None = None,
        weight: int = -1,
        bias: int = -1,
    ) -> Tensor:
        """Writes a record and returns a tensor without data for its result."""
        out = torch.empty(shape, dtype=dtype, device=META)
        self.values[id(out)] = len(self.records)
        self.records.append(Record(kind, function, inputs, shape, node_shape, weight, bias))
        self.alive.append(out)
        return out

    def value(self, tensor: Any) -> int | None:
        """The record of a tensor, None for constants and for anything that is not a tensor."""
        key = id(tensor)
        found = self.values.get(key)
        if found is None and key in self.numbers:
            found = self.values[key] = len(self.records)
            number = self.numbers[key]
            self.records.append(Record(PARAMETER, "parameter", (), self.survey.shapes[number], roots=(number,)))
        return found

    def parameter(self, tensor: Tensor | None, function: str) -> int:
        """The number of the parameter that a tensor is, or is made of by reshaping and scaling; -1 for a constant."""
        if tensor is None:
            return -1
        number = self.numbers.get(id(tensor))
        if number is not None:
            return number
        found = self.values.get(id(tensor))
        if found is None:
            return -1
        record = self.records[found]
        if record.kind != PARAMETER:
            raise GraphError(
                f"{function} got a weight that is computed from activations; dynamic weights have no owner"
            )
        if len(record.roots) != 1:
            names = ", ".join(repr(self.survey.names[i]) for i in record.roots)
            raise GraphError(f"{function} got a weight that is computed from several parameters ({names})")
        return record.roots[0]

    def generic(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function for which there is no rule; its tensors hang on all the recorded tensors that go in."""
        inputs = {found: None for tensor in _tensors((args, kwargs)) if (found := self.value(tensor)) is not None}
        if not inputs:
            return self._constant(func, name, args, kwargs)
        base = name if name.startswith("__") else name.rstrip("_")
        if name in functions.DATA_DEPENDENT or (base == "where" and len(args) + len(kwargs) == 1):
            raise GraphError(
                f"`{name}` asks for the values of an activation; only networks whose control flow and shapes do not "
                "depend on the data have one graph"
            )
        if name in functions.RECURRENT:
            raise GraphError(f"`{name}` is recurrent; only feed-forward networks are architectures here")
        stand_ins: dict[int, Tensor] = {}
        result = func(*self._on_meta(args, stand_ins), **self._on_meta(kwargs, stand_ins))
        if name in functions.FACTORIES:
            return result
        if isinstance(result, Iterator):
            result = list(result)
        outputs = list(_tensors(result))
        known = name in functions.PASS_THROUGH or base in functions.PASS_THROUGH
        if outputs and not known and any(self.records[i].kind != PARAMETER for i in inputs):
            raise GraphError(
                f"the op `{name}` is not in the vocabulary; known without parameters are the functions in "
                "ghnq/graph/functions.py"
            )
        if name == "__setitem__":
            self._derive(args[0], name, tuple(inputs))
            self.overwrite(args[0], self.values[id(args[0])])
        for tensor in outputs:
            self._derive(tensor, base, tuple(inputs))
        if len(outputs) == 1 and outputs[0] is result and args and result is stand_ins.get(id(args[0]), args[0]):
            if id(args[0]) in self.numbers:
                return result  # a parameter is never written to; its stand-in goes on in its place
            self.overwrite(args[0], self.values[id(result)])
            return args[0]
        return result if not isinstance(result, list) or name != "__iter__" else iter(result)

    def overwrite(self, tensor: Tensor, record: int) -> None:
        """An in-place call: from now on the tensor, and the one it is a view of, hang on the record."""
        self.values[id(tensor)] = record
        self.alive.append(tensor)
        base = tensor._base
        if base is not None and id(base) in self.values:
            self._derive(base, "__setitem__", (self.values[id(base)], record))

    def _derive(self, tensor: Tensor, name: str, inputs: tuple[int, ...]) -> None:
        roots: dict[int, None] = {}
        only_parameters = True
        for i in inputs:
            record = self.records[i]
            if record.kind == PARAMETER:
                roots.update(dict.fromkeys(record.roots))
            else:
                only_parameters = False
        kind = PARAMETER if only_parameters else PASS
        self.values[id(tensor)] = len(self.records)
        self.alive.append(tensor)
        self.records.append(Record(kind, name, inputs, tuple(tensor.shape), roots=tuple(roots)))

    def _on_meta(self, value: Any, stand_ins: dict[int, Tensor]) -> Any:
        """The value with a stand-in for every tensor that has data or belongs to the module."""
        if isinstance(value, Tensor):
            key = id(value)
            if value.is_meta and key not in self.numbers and not self._is_buffer(value):
                return value
            if key not in stand_ins:
                stand_ins[key] = torch.empty_like(value, device=META, requires_grad=False)
            return stand_ins[key]
        if type(value) is tuple or type(value) is list:
            return type(value)(self._on_meta(item, stand_ins) for item in value)
        if isinstance(value, dict):
            return {key: self._on_meta(item, stand_ins) for key, item in value.items()}
        return value

    def _is_buffer(self, tensor: Tensor) -> bool:
        return id(tensor) in self.survey.buffers or id(tensor._base) in self.survey.buffers

    def _constant(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        writes = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or name.startswith("__i")
        if writes and args and isinstance(args[0], Tensor) and self._is_buffer(args[0]):
            return args[0]  # counters and running statistics stay as they are
        if args and id(args[0]) in self.survey.counters and name in functions.DATA_DEPENDENT:
            return 1.0  # a cumulative batch norm divides by its count, which is at least one inside its forward
        return func(*args, **kwargs)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


_HANDLERS: dict[Any, Handler] = {}
_TENSOR_PROPERTIES = frozenset({"T", "H", "mT", "mH", "data", "real", "imag"})


def _resolve(func: Any) -> Handler:
    """The way to handle a torch function, found by its name and remembered."""
    from .table import RULES, RULES_BY_FUNCTION

    name = getattr(func, "__name__", str(func))
    if name in ("__get__", "__set__", "__delete__"):
        name = getattr(func.__self__, "__name__", "")
        if name not in _TENSOR_PROPERTIES:
            return _query
    if name in functions.QUERIES:
        return _query
    rule = RULES_BY_FUNCTION.get(func) or RULES.get(name)
    if rule is not None:
        return rule

    def handler(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return recorder.generic(func, name, args, kwargs)

    return handler


def _query(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)
