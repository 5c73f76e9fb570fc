"""How large every tensor of a graph is, seen by running one image through it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from ghnq.errors import ExportError


def with_shapes(simulation: fx.GraphModule, input_shape: tuple[int, ...], origin: str) -> fx.GraphModule:
    """Returns a copy whose nodes have `meta["val"]`, a tensor on `meta` of their shape and type, for one image.

    Raises ExportError where the graph does not take images of `input_shape` (C, H, W).
    """
    module = copy.deepcopy(simulation)
    try:
        with torch.no_grad():
            _Watching(module).run(torch.zeros(1, *input_shape))
    except (RuntimeError, TypeError, IndexError) as error:
        shape = "x".join(map(str, input_shape))
        raise ExportError(f"'{origin}' does not take the images of {shape} that it states: {error}") from error
    return module


class _Watching(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta.setdefault("where", n.name)
        if isinstance(result, Tensor):
            n.meta["val"] = torch.empty_like(result, device="meta")
        return result
