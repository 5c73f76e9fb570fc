"""A look at the module before it runs: its parameters and buffers, what cannot be traced, and how to restore it."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import cache
from operator import is_
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ghnq.errors import GraphError
from ghnq.torch_compat import own_buffers, own_modules, own_parameters


@dataclass(slots=True)
class Survey:
    """What was found.

    names, shapes: of the parameters, in the order of `named_parameters`, a shared one once. number: from the id of a
    parameter to its place in `names`. buffers: ids of buffers and of tensors that are plain attributes. counters: ids
    of those that count batches. attributes: for every module its attribute dictionary, and a copy. containers: by their
    ids, the dictionaries, lists and sets among the attributes that are not empty (parameters, buffers, hooks), and
    copies. dtype: of the first parameter.
    """

    names: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    number: dict[int, int] = field(default_factory=dict)
    buffers: set[int] = field(default_factory=set)
    counters: set[int] = field(default_factory=set)
    attributes: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    containers: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    dtype: torch.dtype | None = None

    def evaluate(self) -> None:
        """Puts every module into evaluation mode, without calling anything of the user's; `restore` takes it back."""
        for live, _ in self.attributes:
            if live["training"]:
                live["training"] = False

    def restore(self) -> None:
        """Puts back every attribute, parameter, buffer and hook that was assigned, added or removed since."""
        containers = self.containers
        for live, saved in self.attributes:
            if len(live) != len(saved) or not all(map(is_, live.values(), saved.values())):
                live.clear()
                live.update(saved)
            for value in saved.values():
                if type(value) in _CONTAINERS and value and id(value) not in containers:
                    value.clear()
        for live, saved in containers.values():
            if len(live) != len(saved) or not all(map(is_, _flat(live), _flat(saved))):
                live.clear()
                (live.extend if isinstance(live, list | deque) else live.update)(saved)


_CONTAINERS = frozenset({list, dict, set, OrderedDict, deque})


def _flat(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def survey(module: nn.Module) -> Survey:
    """Walks the module once; raises `GraphError` naming the submodule or parameter that cannot be traced."""
    result = Survey()
    seen: set[int] = set()
    stack: list[tuple[str, nn.Module]] = [("", module)]
    while stack:
        prefix, current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        kind: Any = type(current)
        fault = _fault(kind)
        if fault:
            raise GraphError(f"module {prefix[:-1] or '(root)'!r} ({kind.__name__}) is {fault}")
        attributes = current.__dict__
        result.attributes.append((attributes, attributes.copy()))
        for value in attributes.values():
            type_ = type(value)
            if type_ in _CONTAINERS:
                if value:
                    result.containers[id(value)] = (value, value.copy())
            elif type_ is torch.Tensor:
                result.buffers.add(id(value))
        for name, parameter in own_parameters(current).items():
            if parameter is not None and id(parameter) not in result.number:
                _add(result, prefix + name, parameter)
        buffers = own_buffers(current)
        if buffers:
            for name, buffer in buffers.items():
                if isinstance(buffer, UninitializedBuffer):
                    raise GraphError(
                        f"buffer {prefix + name!r} is not initialised yet (a lazy module); run the module once before "
                        "tracing"
                    )
            result.buffers.update(map(id, buffers.values()))
            if "num_batches_tracked" in buffers:
                result.counters.add(id(buffers["num_batches_tracked"]))
        children = own_modules(current)
        if children:
            stack.extend((f"{prefix}{name}.", child) for name, child in reversed(children.items()) if child is not None)
    if not result.names:
        raise GraphError(f"{type(module).__name__} has no parameters: there is nothing to predict")
    return result


@cache
def _fault(kind: type[Any]) -> str:
    """Why modules of this class cannot be traced; empty where they can."""
    if issubclass(kind, nn.RNNBase | nn.RNNCellBase):
        return "a recurrent layer; only feed-forward networks are architectures here"
    if issubclass(kind, torch.jit.ScriptModule):
        return "compiled by TorchScript and cannot be observed; trace the original module"
    if kind.__name__ == "OptimizedModule":
        return "compiled by torch.compile and cannot be observed; trace the original, its attribute `_orig_mod`"
    if ".nn.quantized" in kind.__module__ or ".nn.intrinsic.quantized" in kind.__module__:
        return "quantized already; trace the network in float, from which its quantized form is made"
    return ""


def _add(result: Survey, name: str, parameter: torch.Tensor) -> None:
    if isinstance(parameter, UninitializedParameter):
        raise GraphError(
            f"parameter {name!r} is not initialised yet (a lazy module); run the module once before tracing"
        )
    if parameter.layout is not torch.strided or parameter.is_quantized:
        raise GraphError(
            f"parameter {name!r} is sparse or quantized; only dense floating-point parameters are predicted"
        )
    if not parameter.dtype.is_floating_point:
        raise GraphError(
            f"parameter {name!r} is {parameter.dtype}; only floating-point parameters are predicted (a table of "
            "integers is a buffer)"
        )
    if not parameter.numel():
        raise GraphError(f"parameter {name!r} of shape {tuple(parameter.shape)} has no elements to predict")
    if result.dtype is None:
        result.dtype = parameter.dtype
    result.number[id(parameter)] = len(result.names)
    result.names.append(name)
    result.shapes.append(tuple(parameter.shape))
