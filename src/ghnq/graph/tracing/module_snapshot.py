"""A snapshot of a module before it runs: its parameters and buffers, and what is needed to restore it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.graph.elements import Shape
from ghnq.module_check import class_fault, script_function_fault, tensor_fault
from ghnq.torch_compat import own_buffers, own_modules, own_parameters

# Attribute dictionaries and containers hold anything that a user's module holds.
Attributes = dict[str, Any]
Container = list[Any] | dict[Any, Any] | set[Any] | deque[Any]


@dataclass(slots=True)
class ModuleSnapshot:
    """Parameters, buffers and attributes of a module and its submodules.

    Attributes:
        names: Of the parameters, in the order of `named_parameters`; a shared one occurs once.
        shapes: Of the parameters.
        parameter_indices: From the id of a parameter to its place in `names`.
        buffers: Ids of buffers, and of tensors that are plain attributes.
        batch_counters: Ids of the buffers that count batches.
        attributes: For each module its attribute dictionary, and a copy.
        containers: By their ids, the non-empty dictionaries, lists and sets among the attributes (parameters, buffers,
            hooks, ...), and copies.
        dtype: Of the first parameter.
    """

    names: list[str] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    parameter_indices: dict[int, int] = field(default_factory=dict)
    buffers: set[int] = field(default_factory=set)
    batch_counters: set[int] = field(default_factory=set)
    attributes: list[tuple[Attributes, Attributes]] = field(default_factory=list)
    containers: dict[int, tuple[Container, Container]] = field(default_factory=dict)
    dtype: torch.dtype | None = None

    def set_eval_mode(self) -> None:
        """Puts every module into evaluation mode without calling any method of it; `restore` undoes this."""
        for live, _ in self.attributes:
            if live["training"]:
                live["training"] = False

    def restore(self) -> None:
        """Restores every attribute, parameter, buffer and hook that was assigned, added or removed since."""
        containers = self.containers
        for live, saved in self.attributes:
            if len(live) != len(saved) or not all(map(is_, live.values(), saved.values())):
                live.clear()
                live.update(saved)
            for value in saved.values():
                if type(value) in _CONTAINERS and value and id(value) not in containers:
                    value.clear()
        for container, copy in containers.values():
            if len(container) != len(copy) or not all(map(is_, _values(container), _values(copy))):
                container.clear()
                if isinstance(container, list | deque):
                    container.extend(copy)
                else:
                    container.update(copy)


_CONTAINERS = frozenset({list, dict, set, OrderedDict, deque})


def _values(container: Container) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container


def take_snapshot(module: nn.Module) -> ModuleSnapshot:
    """Returns the snapshot of a module.

    Raises:
        GraphError: A submodule or parameter cannot be traced; the message names it.
    """
    result = ModuleSnapshot()
    seen: set[int] = set()
    stack: list[tuple[str, nn.Module]] = [("", module)]
    while stack:
        prefix, current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        kind: Any = type(current)  # mypy does not know that classes are hashable
        fault = class_fault(kind)
        if fault:
            raise GraphError(f"module {prefix[:-1] or '(root)'!r} ({kind.__name__}) is {fault}")
        _add_attributes(result, prefix, current.__dict__)
        for name, parameter in own_parameters(current).items():
            if parameter is not None and id(parameter) not in result.parameter_indices:
                _add_parameter(result, prefix + name, parameter)
        _add_buffers(result, prefix, own_buffers(current))
        children = own_modules(current)
        if children:
            stack.extend((f"{prefix}{name}.", child) for name, child in reversed(children.items()) if child is not None)
    if not result.names:
        raise GraphError(f"{type(module).__name__} has no parameters: there is nothing to predict")
    return result


def _add_attributes(result: ModuleSnapshot, prefix: str, attributes: Attributes) -> None:
    result.attributes.append((attributes, attributes.copy()))
    for name, value in attributes.items():
        kind = type(value)
        if kind in _CONTAINERS:
            if value:
                result.containers[id(value)] = (value, value.copy())
        elif kind is torch.Tensor:
            result.buffers.add(id(value))
        elif kind is torch.jit.ScriptFunction:
            raise GraphError(script_function_fault(prefix[:-1], name))


def _add_buffers(result: ModuleSnapshot, prefix: str, buffers: dict[str, Tensor | None]) -> None:
    if not buffers:
        return
    for name, buffer in buffers.items():
        fault = tensor_fault(buffer)
        if fault:
            raise GraphError(f"buffer {prefix + name!r} {fault}")
    result.buffers.update(map(id, buffers.values()))
    if "num_batches_tracked" in buffers:
        result.batch_counters.add(id(buffers["num_batches_tracked"]))


def _add_parameter(result: ModuleSnapshot, name: str, parameter: Tensor) -> None:
    fault = tensor_fault(parameter)
    if fault:
        raise GraphError(f"parameter {name!r} {fault}")
    if not parameter.dtype.is_floating_point:
        raise GraphError(
            f"parameter {name!r} is {parameter.dtype}; only floating-point parameters are predicted (a table of "
            "integers is a buffer)"
        )
    if not parameter.numel():
        raise GraphError(f"parameter {name!r} of shape {tuple(parameter.shape)} has no elements to predict")
    if result.dtype is None:
        result.dtype = parameter.dtype
    result.parameter_indices[id(parameter)] = len(result.names)
    result.names.append(name)
    result.shapes.append(tuple(parameter.shape))
