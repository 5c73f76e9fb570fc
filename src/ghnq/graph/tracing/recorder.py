"""A mode under which a module runs once on tensors without data, and which writes down what it calls.

Common functions have a rule (`table.py`) that computes the output shape by arithmetic. The others run on PyTorch's meta
device, with a stand-in for every tensor that is not there, so that no weight is copied, read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ghnq.errors import GraphError
from ghnq.graph.tracing import function_names as functions
from ghnq.graph.tracing.call_record import INPUT, PARAMETER, PASS, Record, Shape
from ghnq.graph.tracing.direct_parameters import stray
from ghnq.graph.tracing.inspection import Survey

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
        self.unknown: dict[str, None] = {}  # names of functions that are not in the vocabulary
        self._views_are_old = False
        self._lasting: dict[int, Tensor] = {}  # stand-ins of constants that have been written to
        self._originals: dict[int, Tensor] = {}  # and those constants, by the stand-in
        self._owned: set[int] = set()
        self._before: list[int] = []
        self._factors: list[int] = []

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._views_are_old:
            for tensor in _tensors((args, kwargs or {})):
                self.current(tensor)
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
        if self._before or self._factors:
            inputs = self._with_extras(function, inputs, shape)
        self._mark(out, len(self.records))
        self.records.append(Record(kind, function, inputs, shape, node_shape, weight, bias))
        return out

    def _with_extras(self, function: str, inputs: tuple[int, ...], shape: Shape) -> tuple[int, ...]:
        """What `parameter` has put aside: further parameters of the weight, and activations that it is made of."""
        for number in self._before:
            owner = stray("weight", number, self.survey.shapes[number], (inputs[0],), shape, several=True)
            inputs = self._append(owner)
        if self._factors:
            inputs = self._append(Record("cse", function, (*inputs, *self._factors), shape))
        self._before, self._factors = [], []
        return inputs

    def _append(self, record: Record) -> tuple[int]:
        self.records.append(record)
        return (len(self.records) - 1,)

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
        """The number of the parameter that a tensor is, or is made of; -1 for a constant.

        Of several parameters that make one weight (weight normalisation has a direction and a length) the largest is
        the weight, and the others become nodes in front. A weight made of activations makes the next record a product.
        """
        if tensor is None:
            return -1
        number = self.numbers.get(id(tensor))
        if number is None:
            found = self.values.get(id(tensor))
            if found is None:
                return -1
            record = self.records[found]
            if record.kind != PARAMETER:
                self._factors.append(found)
                return -1
            number = max(record.roots, key=lambda i: (prod(self.survey.shapes[i]), -i))
            self._before += [i for i in record.roots if i != number and i not in self._owned]
        self._owned.add(number)
        return number

    def generic(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function for which there is no rule; its tensors hang on all the recorded tensors that go in."""
        inputs = {found: None for tensor in _tensors((args, kwargs)) if (found := self.value(tensor)) is not None}
        if not inputs:
            return self._constant(func, name, args, kwargs)
        base = name if name.startswith("__") else name.rstrip("_")
        if name in functions.DATA_DEPENDENT or (base == "where" and len(args) + len(kwargs) == 1):
            raise _data_dependent(f"`{name}` asks for the values of an activation or a parameter")
        if name in functions.RECURRENT:
            raise GraphError(f"`{name}` is recurrent; only feed-forward networks are architectures here")
        if name == "__getitem__":
            args = (args[0], self._without_masks(args[1]))
        stand_ins: dict[int, Tensor] = {}
        result = func(*self._on_meta(args, stand_ins), **self._on_meta(kwargs, stand_ins))
        if name in functions.FACTORIES:
            return result
        if isinstance(result, Iterator):
            result = list(result)
        outputs = list(_tensors(result))
        sources = tuple(inputs)
        if outputs and any(self.records[i].kind != PARAMETER for i in inputs):
            owners = self.own(base, sources, tuple(outputs[0].shape), args)
            if owners == sources and name not in functions.PASS_THROUGH and base not in functions.PASS_THROUGH:
                self.unknown[base] = None
            sources = owners
        if name == "__setitem__":
            self._derive(args[0], name, sources)
            self.overwrite(args[0], self.values[id(args[0])])
        for tensor in outputs:
            if len(outputs) == len(sources) == 1 and sources[0] not in inputs:
                self._mark(tensor, sources[0])  # the node that has just been made for a parameter
            else:
                self._derive(tensor, base, sources)
        if len(outputs) == 1 and outputs[0] is result and args and result is stand_ins.get(id(args[0]), args[0]):
            if id(args[0]) in self.numbers:
                return result  # a parameter is never written to; its stand-in goes on in its place
            self.overwrite(args[0], self.values[id(result)])
            return args[0]
        return result if not isinstance(result, list) or name != "__iter__" else iter(result)

    def _without_masks(self, index: Any) -> Any:
        """An index in which constant masks are the places they choose; raises GraphError for a computed mask."""
        items = index if isinstance(index, tuple) else (index,)
        if not any(isinstance(item, Tensor) and item.dtype is torch.bool for item in items):
            return index
        found: list[Any] = []
        for item in items:
            if not isinstance(item, Tensor) or item.dtype is not torch.bool:
                found.append(item)
            elif self.value(item) is not None or item.is_meta:
                raise _data_dependent("selecting by a mask asks for the values of an activation")
            else:
                found.extend(item.nonzero(as_tuple=True))
        return tuple(found)

    def own(self, name: str, inputs: tuple[int, ...], shape: Shape, args: tuple[Any, ...] = ()) -> tuple[int, ...]:
        """Where parameters meet activations outside the rules: a node for each of them, one behind the other.

        args: of the function. Returns what the result hangs on: the last of these nodes, or the inputs as they came.
        """
        made_of = {i: self.records[i].roots for i in inputs if self.records[i].kind == PARAMETER}
        sources = tuple(i for i in inputs if i not in made_of)
        first = next((found for tensor in _tensors(args) if (found := self.values.get(id(tensor))) is not None), -1)
        pairs = [(number, i == first, len(roots) > 1) for i, roots in made_of.items() for number in roots]
        # A matrix before what is added to its product.
        for number, left, several in sorted(pairs, key=lambda pair: -len(self.survey.shapes[pair[0]])):
            owner = stray(name, number, self.survey.shapes[number], sources, shape, several=several, left=left)
            self._owned.add(number)
            sources = self._append(owner)
        return sources

    def overwrite(self, tensor: Tensor, record: int) -> None:
        """An in-place call: from now on the tensor, the one it is a view of, and all its views hang on the record."""
        self._views_are_old = True
        base = self._base(tensor)
        if base is not None:
            before = self.values.get(id(base))  # nothing for a constant that is filled piece by piece
            self._derive(base, "__setitem__", (record,) if before is None else (before, record))
            self._derive(tensor, "__setitem__", (record,))  # which is newer than its base
        else:
            self._mark(tensor, record)

    def _base(self, tensor: Tensor) -> Tensor | None:
        """What a tensor is a view of; of a stand-in's view, the tensor with data for which it stands."""
        base = tensor._base
        return base if base is None else self._originals.get(id(base), base)

    def current(self, tensor: Tensor) -> int | None:
        """The record of a tensor, also of a view whose base has been written to since."""
        base = self._base(tensor)
        newer = None if base is None else self.values.get(id(base))
        found = self.values.get(id(tensor))
        if newer is not None and (found is None or newer > found):
            self._derive(tensor, "__setitem__", (newer,) if found is None else (found, newer))
        return self.values.get(id(tensor))

    def _mark(self, tensor: Tensor, record: int) -> None:
        self.values[id(tensor)] = record
        self.alive.append(tensor)

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
        self._mark(tensor, len(self.records))
        self.records.append(Record(kind, name, inputs, tuple(tensor.shape), roots=tuple(roots)))

    def _on_meta(self, value: Any, stand_ins: dict[int, Tensor]) -> Any:
        """The value with a stand-in for every tensor that has data or belongs to the module."""
        if isinstance(value, Tensor):
            key = id(value)
            if value.is_meta and key not in self.numbers and not self._is_buffer(value):
                return value
            if key in self._lasting:
                return self._lasting[key]
            if key not in stand_ins:
                stand_ins[key] = torch.empty_like(value, device=META, requires_grad=False)
                if key in self.values and key not in self.numbers:
                    self._lasting[key] = stand_ins[key]
                    self._originals[id(stand_ins[key])] = value
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


def _data_dependent(what: str) -> GraphError:
    return GraphError(f"{what}; only networks whose control flow and shapes do not depend on the data have one graph")


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
    from ghnq.graph.tracing.rule_table import RULES, RULES_BY_FUNCTION

    name = getattr(func, "__name__", str(func)).partition(".")[0]  # an operator's name ends in its overload
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
