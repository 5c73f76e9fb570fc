"""The shape of every tensor of a graph, found by running one image through it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

from ghnq.deploy.graph.rewriter import visit_tensors
from ghnq.errors import ExportError


def with_shapes(simulation: fx.GraphModule, input_shape: tuple[int, ...], origin: str) -> fx.GraphModule:
    """Returns a copy whose nodes have `meta["val"]`, a tensor on `meta` of their shape and type, for one image.

    Raises:
        ExportError: The graph cannot run on images of `input_shape` (C, H, W).
    """
    module = copy.deepcopy(simulation)

    def visit(node: fx.Node, tensor: Tensor) -> None:
        node.meta.setdefault("where", node.name)
        node.meta["val"] = torch.empty_like(tensor, device="meta")

    try:
        visit_tensors(module, [torch.zeros(1, *input_shape)], visit)
    except (RuntimeError, TypeError, IndexError) as error:
        shape = "x".join(map(str, input_shape))
        raise ExportError(f"'{origin}' does not take images of {shape} as its metadata say: {error}") from error
    return module
