"""Copies of modules, several times as fast as `copy.deepcopy`.

`copy.deepcopy` copies each of the dozen empty hook tables of every layer through its general protocol, which for a
network of a hundred layers takes longer than the prediction of its parameters.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.torch_compat import COMPILED_CALL_ATTRIBUTE

_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size})


def copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Returns what `copy.deepcopy(module, memo)` returns; methods with which a class defines its copying are used.

    Args:
        memo: Id of an object -> what replaces it in the copy; extended by what is copied.

    Raises:
        GraphError: An attribute cannot be copied.
    """
    known = memo.get(id(module))
    if known is not None:
        return known  # type: ignore[no-any-return]
    kind: Any = type(module)
    if not _is_plain(kind):
        return copy.deepcopy(module, memo)
    new: nn.Module = kind.__new__(kind)
    memo[id(module)] = new
    attributes = new.__dict__
    for name, value in module.__dict__.items():
        type_ = type(value)
        if type_ in _ATOMS:
            attributes[name] = value
        elif type_ is OrderedDict and not value:  # most of what a layer has: tables of hooks
            attributes[name] = OrderedDict()
        elif name != COMPILED_CALL_ATTRIBUTE:  # belongs to the module it was compiled for
            try:
                attributes[name] = _copied(value, memo)
            except (TypeError, RuntimeError) as error:  # what `copy` raises for a lock, a generator, an open file
                raise GraphError(f"{kind.__name__}.{name} cannot be copied: {error}") from error
    return new


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, nn.Module):
        return copy_module(value, memo)
    if kind is dict or kind is OrderedDict:
        if id(value) in memo:
            return memo[id(value)]
        if all(type(key) in _ATOMS for key in value):
            new = memo[id(value)] = kind()
            for key, item in value.items():
                new[key] = _copied(item, memo)
            return new
    if isinstance(value, Tensor) and not value.is_leaf and id(value) not in memo:
        # Computed from parameters (weight normalisation of the old kind); `copy` refuses it.
        memo[id(value)] = value.detach().clone()
    if kind is tuple and all(type(item) in _ATOMS for item in value):
        return value
    return copy.deepcopy(value, memo)


@cache
def _is_plain(kind: type[Any]) -> bool:
    """Returns whether objects of a class are copied attribute by attribute, as nn.Module and its layers are."""
    ways = ("__deepcopy__", "__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__slots__")
    return not any(
        name in vars(base)
        for base in kind.__mro__[:-1]
        for name in ways
        if not base.__module__.startswith("torch.nn.modules.")
    )
