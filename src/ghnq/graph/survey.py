"""A look at the module before it runs: its parameters and buffers, what cannot be traced, and how to restore it."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from ..errors import GraphError


@dataclass(slots=True)
class Survey:
    """What was found.

    names, shapes: of the parameters, in the order of `named_parameters`, a shared one once. number: from the id of a
    parameter to its place in `names`. buffers: their ids. counters: ids of those that count batches. state: for every
    module its attribute dictionaries, and copies of them as they were. containers: lists, dictionaries and sets among
    the attributes (hooks are such), and copies. dtype: of the first floating-point parameter.
    """

    names: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    number: dict[int, int] = field(default_factory=dict)
    buffers: set[int] = field(default_factory=set)
    counters: set[int] = field(default_factory=set)
    state: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    containers: list[tuple[Any, Any]] = field(default_factory=list)
    dtype: torch.dtype | None = None

    def evaluate(self) -> None:
        """Puts every module into evaluation mode, without calling anything of the user's; `restore` takes it back."""
        for live, _ in self.state:
            if live.get("training") is True:
                live["training"] = False

    def restore(self) -> None:
        """Puts back every attribute, parameter, buffer and hook that was assigned, added or removed since."""
        for live, saved in self.state:
            if live.keys() != saved.keys() or not all(map(is_, live.values(), saved.values())):
                live.clear()
                live.update(saved)
        for container, content in self.containers:
            if len(container) != len(content) or not all(map(is_, _flat(container), _flat(content))):
                container.clear()
                (container.extend if isinstance(container, list | deque) else container.update)(content)


_CONTAINERS = (list, dict, set, OrderedDict, deque)
_NOT_KEPT_TWICE = frozenset({"_parameters", "_buffers"})


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
        _refuse(prefix, current)
        own, buffers = current._parameters, current._buffers
        attributes = current.__dict__
        result.state.append((attributes, dict(attributes)))
        for name, value in attributes.items():
            if type(value) in _CONTAINERS and name not in _NOT_KEPT_TWICE:
                result.containers.append((value, value.copy() if value else ()))
        if own:
            result.state.append((own, dict(own)))
            for name, parameter in own.items():
                if parameter is not None and id(parameter) not in result.number:
                    _add(result, prefix + name, parameter)
        if buffers:
            result.state.append((buffers, dict(buffers)))
            result.buffers.update(map(id, buffers.values()))
            if "num_batches_tracked" in buffers:
                result.counters.add(id(buffers["num_batches_tracked"]))
        children = [(f"{prefix}{name}.", child) for name, child in current._modules.items() if child is not None]
        stack.extend(reversed(children))
    if not result.names:
        raise GraphError(f"{type(module).__name__} has no parameters: there is nothing to predict")
    return result


def _add(result: Survey, name: str, parameter: torch.Tensor) -> None:
    if isinstance(parameter, UninitializedParameter):
        raise GraphError(
            f"parameter {name!r} is not initialised yet (a lazy module); run the module once before tracing"
        )
    if parameter.layout is not torch.strided or parameter.is_quantized:
        raise GraphError(
            f"parameter {name!r} is sparse or quantized; only dense floating-point parameters are predicted"
        )
    if result.dtype is None and parameter.dtype.is_floating_point:
        result.dtype = parameter.dtype
    result.number[id(parameter)] = len(result.names)
    result.names.append(name)
    result.shapes.append(tuple(parameter.shape))


def _refuse(prefix: str, module: nn.Module) -> None:
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        kind = "a recurrent layer; only feed-forward networks are architectures here"
    elif ".nn.quantized" in type(module).__module__ or ".nn.intrinsic.quantized" in type(module).__module__:
        kind = "quantized already; trace the network in float, from which its quantized form is made"
    elif hasattr(module, "_orig_mod") and hasattr(module, "dynamo_ctx"):
        kind = "compiled by torch.compile and cannot be observed; trace the original, its attribute `_orig_mod`"
    elif isinstance(module, torch.jit.ScriptModule):
        kind = "compiled by TorchScript and cannot be observed; trace the original module"
    else:
        return
    raise GraphError(f"module {prefix[:-1] or '(root)'!r} ({type(module).__name__}) is {kind}")
