"""A torch function mode that records the functions that a module calls, while it runs once on tensors without data.

Common functions have a rule (`rule_table.py`), which computes the output shape by arithmetic. The others run on
PyTorch's meta device, with stand-ins for tensors with data (`stand_ins.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghnq.errors import GraphError
from ghnq.eval_calls import Mistakes
from ghnq.graph.elements import Shape, Shape4
from ghnq.graph.tracing import function_names as functions
from ghnq.graph.tracing.call_record import INPUT, PARAMETER, PASS, Args, CallRecord, Kwargs, TorchFunction
from ghnq.graph.tracing.direct_parameters import parameter_node
from ghnq.graph.tracing.module_snapshot import ModuleSnapshot
from ghnq.graph.tracing.stand_ins import META, StandIns

Handler = Callable[["Recorder", TorchFunction, Args, Kwargs], object]


class Recorder(TorchFunctionMode):
    """Records the torch functions called on the input and on the parameters of a module.

    A tensor that has no record is a constant.

    Args:
        module: The module that runs.
        snapshot: Of the module.
        handlers: What to do for each torch function.

    Attributes:
        records: One per call.
        record_indices: From the id of a tensor to the index of its record. The tensors are kept alive, so that no id is
            used twice.
        unknown_functions: Names of functions outside the vocabulary that were called, in order, as keys.
        mistakes: What the module does that is likely a mistake.
    """

    def __init__(self, module: nn.Module, snapshot: ModuleSnapshot, handlers: Mapping[TorchFunction, Handler]) -> None:
        super().__init__()
        self.mistakes = Mistakes(module)
        self.snapshot = snapshot
        self.handlers = handlers
        self.records: list[CallRecord] = []
        self.record_indices: dict[int, int] = {}
        self.unknown_functions: dict[str, None] = {}
        self._stand_ins = StandIns(snapshot, self.record_indices)
        self._kept_alive: list[Tensor] = []
        self._views_stale = False
        self._assigned: set[int] = set()  # indices of parameters that have a node
        # Set by `parameter_index` for the next call of `emit`.
        self._further_parameters: list[int] = []
        self._weight_activations: list[int] = []

    def __torch_function__(
        self, func: TorchFunction, types: Iterable[type], args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        if self._views_stale:
            for tensor in argument_tensors((args, kwargs or {})):
                self.current_record(tensor)
        return self.handlers[func](self, func, args, kwargs or {})

    def start(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        """Returns the input: a tensor without data."""
        return self.emit(INPUT, "input", (), shape, dtype)

    def emit(
        self,
        kind: str,
        function: str,
        inputs: tuple[int, ...],
        shape: Shape,
        dtype: torch.dtype,
        node_shape: Shape4 | None = None,
        weight: int = -1,
        bias: int = -1,
    ) -> Tensor:
        """Adds a record (for the arguments see `CallRecord`) and returns a tensor without data for its result."""
        out = torch.empty(shape, dtype=dtype, device=META)
        if self._further_parameters or self._weight_activations:
            inputs = self._with_weight_inputs(function, inputs, shape)
        self._set_record(out, len(self.records))
        self.records.append(CallRecord(kind, function, inputs, shape, node_shape, weight, bias))
        return out

    def _with_weight_inputs(self, function: str, inputs: tuple[int, ...], shape: Shape) -> tuple[int, ...]:
        """Adds nodes for further parameters that the weight is made of, and for activations that it is made of."""
        for index in self._further_parameters:
            shape_of_parameter = self.snapshot.shapes[index]
            node = parameter_node("weight", index, shape_of_parameter, (inputs[0],), shape, several=True)
            inputs = self._append(node)
        if self._weight_activations:
            inputs = self._append(CallRecord("cse", function, (*inputs, *self._weight_activations), shape))
        self._further_parameters, self._weight_activations = [], []
        return inputs

    def _append(self, record: CallRecord) -> tuple[int]:
        self.records.append(record)
        return (len(self.records) - 1,)

    def find_record(self, value: object) -> int | None:
        """Returns the record of a tensor; None for constants and for anything that is not a tensor."""
        key = id(value)
        found = self.record_indices.get(key)
        if found is None and key in self.snapshot.parameter_indices:
            found = self.record_indices[key] = len(self.records)
            index = self.snapshot.parameter_indices[key]
            self.records.append(CallRecord(PARAMETER, "parameter", (), self.snapshot.shapes[index], roots=(index,)))
        elif found is None:
            self.mistakes.note_unregistered(value)
        return found

    def parameter_index(self, tensor: Tensor | None) -> int:
        """Returns the index of the parameter that a weight or bias is, or is made of; -1 for a constant.

        If several parameters make one weight (weight normalisation has a direction and a length), the largest is the
        weight, and the others become nodes in front of the next record. If activations make the weight, a product is
        put in front of the next record.
        """
        if tensor is None:
            return -1
        index = self.snapshot.parameter_indices.get(id(tensor))
        if index is None:
            found = self.record_indices.get(id(tensor))
            if found is None:
                self.mistakes.note_unregistered(tensor)
                return -1
            record = self.records[found]
            if record.kind != PARAMETER:
                self._weight_activations.append(found)
                return -1
            index = max(record.roots, key=lambda i: (prod(self.snapshot.shapes[i]), -i))
            self._further_parameters += [i for i in record.roots if i != index and i not in self._assigned]
        self._assigned.add(index)
        return index

    def call_without_rule(self, func: TorchFunction, name: str, args: Args, kwargs: Kwargs) -> object:
        """Calls a function for which there is no rule; its results depend on all recorded tensors among the arguments.

        Raises:
            GraphError: The function needs the values of a tensor, or is recurrent.
        """
        found = [self.find_record(tensor) for tensor in argument_tensors((args, kwargs))]
        inputs = tuple(dict.fromkeys(i for i in found if i is not None))
        if not inputs:
            return self._call_on_constants(func, name, args, kwargs)
        base_name = name if name.startswith("__") else name.rstrip("_")
        if name in functions.DATA_DEPENDENT or (base_name == "where" and len(args) + len(kwargs) == 1):
            raise _data_dependent(f"`{name}` asks for the values of an activation or a parameter")
        if name in functions.RECURRENT:
            raise GraphError(f"`{name}` is recurrent; only feed-forward networks are architectures here")
        if name == "__getitem__":
            args = (args[0], self._without_masks(args[1]))
        stand_ins: dict[int, Tensor] = {}
        result = func(*self._stand_ins.replace(args, stand_ins), **self._stand_ins.replace(kwargs, stand_ins))
        if name in functions.FACTORIES:
            return result
        if isinstance(result, Iterator):
            result = list(result)
        outputs = list(argument_tensors(result))
        self._record_outputs(name, base_name, inputs, outputs, args)
        if len(outputs) == 1 and outputs[0] is result and args and result is stand_ins.get(id(args[0]), args[0]):
            if id(args[0]) in self.snapshot.parameter_indices:
                return result  # a parameter is never written to; its stand-in is used instead
            self.overwrite(args[0], self.record_indices[id(result)])
            return args[0]
        return iter(result) if name == "__iter__" and isinstance(result, list) else result

    def _record_outputs(
        self, name: str, base_name: str, inputs: tuple[int, ...], outputs: list[Tensor], args: Args
    ) -> None:
        sources = inputs
        if outputs and any(self.records[i].kind != PARAMETER for i in inputs):
            sources = self.add_parameter_nodes(base_name, inputs, tuple(outputs[0].shape), args)
            known = name in functions.PASS_THROUGH or base_name in functions.PASS_THROUGH
            if sources == inputs and not known:
                self.unknown_functions[base_name] = None
        if name == "__setitem__":
            self._add_derived(args[0], name, sources)
            self.overwrite(args[0], self.record_indices[id(args[0])])
        for tensor in outputs:
            if len(outputs) == len(sources) == 1 and sources[0] not in inputs:
                self._set_record(tensor, sources[0])  # the node that has just been made for a parameter
            else:
                self._add_derived(tensor, base_name, sources)

    def _without_masks(self, index: object) -> object:
        """Returns an index in which constant boolean masks are replaced by integer indices.

        Raises:
            GraphError: A mask is an activation.
        """
        items = index if isinstance(index, tuple) else (index,)
        if not any(isinstance(item, Tensor) and item.dtype is torch.bool for item in items):
            return index
        found: list[object] = []
        for item in items:
            if not isinstance(item, Tensor) or item.dtype is not torch.bool:
                found.append(item)
            elif self.find_record(item) is not None or item.is_meta:
                raise _data_dependent("selecting by a mask asks for the values of an activation")
            else:
                found.extend(item.nonzero(as_tuple=True))
        return tuple(found)

    def add_parameter_nodes(self, name: str, inputs: tuple[int, ...], shape: Shape, args: Args = ()) -> tuple[int, ...]:
        """Adds a node for each parameter among the inputs of a function without rule, each the input of the next.

        Args:
            name: Of the function.
            shape: Of the result.
            args: Of the function.

        Returns:
            The records that the result depends on: the last of the new nodes, or the inputs if there is none.
        """
        made_of = {i: self.records[i].roots for i in inputs if self.records[i].kind == PARAMETER}
        sources = tuple(i for i in inputs if i not in made_of)
        recorded = (self.record_indices.get(id(tensor)) for tensor in argument_tensors(args))
        first = next((i for i in recorded if i is not None), -1)
        pairs = [(index, i == first, len(roots) > 1) for i, roots in made_of.items() for index in roots]
        # A matrix before what is added to its product.
        for index, left, several in sorted(pairs, key=lambda pair: -len(self.snapshot.shapes[pair[0]])):
            shape_of_parameter = self.snapshot.shapes[index]
            node = parameter_node(name, index, shape_of_parameter, sources, shape, several=several, left=left)
            self._assigned.add(index)
            sources = self._append(node)
        return sources

    def overwrite(self, tensor: Tensor, record: int) -> None:
        """Records an in-place change: from now on the tensor, its base, and all views of these have this record."""
        self._views_stale = True
        base = self._stand_ins.base(tensor)
        if base is not None:
            previous = self.record_indices.get(id(base))  # None for a constant that is filled part by part
            self._add_derived(base, "__setitem__", (record,) if previous is None else (previous, record))
            self._add_derived(tensor, "__setitem__", (record,))  # which is newer than that of its base
        else:
            self._set_record(tensor, record)

    def current_record(self, tensor: Tensor) -> int | None:
        """Returns the record of a tensor, also of a view whose base has been written to since."""
        base = self._stand_ins.base(tensor)
        newer = None if base is None else self.record_indices.get(id(base))
        found = self.record_indices.get(id(tensor))
        if newer is not None and (found is None or newer > found):
            self._add_derived(tensor, "__setitem__", (newer,) if found is None else (found, newer))
        return self.record_indices.get(id(tensor))

    def _set_record(self, tensor: Tensor, record: int) -> None:
        self.record_indices[id(tensor)] = record
        self._kept_alive.append(tensor)

    def _add_derived(self, tensor: Tensor, name: str, inputs: tuple[int, ...]) -> None:
        """Adds a record for a tensor that is not a node."""
        roots: dict[int, None] = {}
        only_parameters = True
        for i in inputs:
            record = self.records[i]
            if record.kind == PARAMETER:
                roots.update(dict.fromkeys(record.roots))
            else:
                only_parameters = False
        kind = PARAMETER if only_parameters else PASS
        self._set_record(tensor, len(self.records))
        self.records.append(CallRecord(kind, name, inputs, tuple(tensor.shape), roots=tuple(roots)))

    def _call_on_constants(self, func: TorchFunction, name: str, args: Args, kwargs: Kwargs) -> object:
        writes = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or name.startswith("__i")
        if writes and args and isinstance(args[0], Tensor) and self._stand_ins.is_buffer(args[0]):
            return args[0]  # counters and running statistics stay as they are
        if args and id(args[0]) in self.snapshot.batch_counters and name in functions.DATA_DEPENDENT:
            return 1.0  # a cumulative batch norm divides by its count, which is at least one inside its forward
        return func(*args, **kwargs)


def argument_tensors(value: object) -> Iterator[Tensor]:
    """Yields the tensors in the arguments or results of a torch function: in tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from argument_tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from argument_tensors(item)


def _data_dependent(problem: str) -> GraphError:
    return GraphError(
        f"{problem}; only networks whose control flow and shapes do not depend on the data have one graph"
    )
