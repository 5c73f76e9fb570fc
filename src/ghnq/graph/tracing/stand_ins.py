"""Tensors on the meta device that stand in for tensors with data, so that no data is copied, read or written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ghnq.graph.tracing.module_snapshot import ModuleSnapshot
from ghnq.torch_compat import view_base

META = torch.device("meta")


class StandIns:
    """Makes stand-ins for the arguments of a call.

    A tensor that has been written to keeps its stand-in for later calls, so that views of the stand-in can be followed.

    Args:
        snapshot: Of the module that runs.
        record_indices: The record of each recorded tensor, by the id of the tensor; the recorder adds to it.
    """

    def __init__(self, snapshot: ModuleSnapshot, record_indices: Mapping[int, int]) -> None:
        self._snapshot = snapshot
        self._record_indices = record_indices
        self._kept: dict[int, Tensor] = {}
        self._originals: dict[int, Tensor] = {}

    def replace(self, value: Any, temporary: dict[int, Tensor]) -> Any:
        """Returns the value with a stand-in for each tensor that has data or belongs to the module.

        Args:
            temporary: The stand-ins made for one call, by the id of the original; new ones are added.
        """
        if isinstance(value, Tensor):
            return self._replace_tensor(value, temporary)
        if type(value) is tuple or type(value) is list:
            return type(value)(self.replace(item, temporary) for item in value)
        if isinstance(value, dict):
            return {key: self.replace(item, temporary) for key, item in value.items()}
        return value

    def _replace_tensor(self, tensor: Tensor, temporary: dict[int, Tensor]) -> Tensor:
        key = id(tensor)
        is_parameter = key in self._snapshot.parameter_indices
        if tensor.is_meta and not is_parameter and not self.is_buffer(tensor):
            return tensor
        if key in self._kept:
            return self._kept[key]
        if key not in temporary:
            temporary[key] = torch.empty_like(tensor, device=META, requires_grad=False)
            if key in self._record_indices and not is_parameter:
                self._kept[key] = temporary[key]
                self._originals[id(temporary[key])] = tensor
        return temporary[key]

    def base(self, tensor: Tensor) -> Tensor | None:
        """Returns the tensor of which a tensor is a view; for a view of a stand-in, the original."""
        base = view_base(tensor)
        return base if base is None else self._originals.get(id(base), base)

    def is_buffer(self, tensor: Tensor) -> bool:
        """Returns whether a tensor is a buffer of the module, or a view of one."""
        buffers = self._snapshot.buffers
        return id(tensor) in buffers or id(view_base(tensor)) in buffers
