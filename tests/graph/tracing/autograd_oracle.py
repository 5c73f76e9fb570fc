"""An independent way to the same graph: run the network for real and walk PyTorch's autograd graph backwards.

It shares no code with the tracer and knows nothing of torch functions, modes or shapes.
"""

from __future__ import annotations

from typing import Any

import networkx as nx
import torch
from torch import nn

KINDS = {
    "ConvolutionBackward0": "conv",
    "AddmmBackward0": "conv",
    "MmBackward0": "conv",
    "NativeBatchNormBackward0": "bn",
    "NativeGroupNormBackward0": "ln",
    "NativeLayerNormBackward0": "ln",
    "MaxPool2DWithIndicesBackward0": "max_pool",
    "AvgPool2DBackward0": "avg_pool",
    "AdaptiveAvgPool2DBackward0": "glob_avg",
    "AddBackward0": "sum",
    "CatBackward0": "concat",
    "MulBackward0": "cse",
}
MERGES = ("sum", "concat", "cse")


def direct(function: str, shape: tuple[int, ...]) -> str:
    """The op of a parameter that no layer owns."""
    if function == "AddBackward0":
        return "bias" if sum(size > 1 for size in shape) < 2 else "pos_enc"
    return "conv" if "Mm" in function or "MM" in function else "other"


def graph_of(module: nn.Module, image: torch.Tensor) -> nx.DiGraph:
    """Nodes are labelled (op, name of the parameter); a convolution's bias is a node of its own behind the weight."""
    names = {id(p): name for name, p in module.named_parameters()}
    image.requires_grad_(True)
    output = module(image)
    graph = nx.DiGraph()
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    seen: dict[Any, frozenset[int]] = {}

    def parameters(fn: Any) -> list[str]:
        found = []
        for child, _ in fn.next_functions:
            # a matrix multiplication sees the weight through a transpose, a PReLU through a view
            while child is not None and type(child).__name__ in ("TBackward0", "ViewBackward0", "ExpandBackward0"):
                child = child.next_functions[0][0]
            if child is not None and hasattr(child, "variable") and id(child.variable) in names:
                found.append(names[id(child.variable)])
        return found

    def add(label: tuple[str, str], sources: frozenset[int]) -> frozenset[int]:
        node = graph.number_of_nodes()
        graph.add_node(node, label=label)
        graph.add_edges_from((source, node) for source in sources)
        return frozenset([node])

    def visit(fn: Any) -> frozenset[int]:
        if fn in seen:
            return seen[fn]
        if hasattr(fn, "variable"):
            seen[fn] = add(("input", ""), frozenset()) if fn.variable is image else frozenset()
            return seen[fn]
        sources = frozenset().union(*(visit(child) for child, _ in fn.next_functions if child is not None))
        kind = KINDS.get(type(fn).__name__)
        if type(fn).__name__ == "MeanBackward1":
            # GHN-2 counts the means with keepdim: adaptive pooling to one pixel
            kind = "glob_avg" if fn._saved_keepdim else None
        owned = parameters(fn)
        if (owned and not owned[0].endswith(("weight", "bias"))) or type(fn).__name__ == "PreluKernelBackward0":
            seen[fn] = add((direct(type(fn).__name__, shapes[owned[0]]), owned[0]), sources)
            return seen[fn]
        if kind in ("conv", "bn", "ln") and not owned:
            kind = None
        if kind is None or (kind in MERGES and len(sources) < 2):
            seen[fn] = sources
            return sources
        weights = [name for name in owned if name.endswith("weight")]
        biases = [name for name in owned if name.endswith("bias")]
        if kind == "conv":
            if hasattr(fn, "_saved_groups") and fn._saved_groups > 1:
                kind = "dil_conv" if min(fn._saved_dilation) > 1 else "sep_conv"
            seen[fn] = add((kind, weights[0]), sources)
            if biases:
                seen[fn] = add(("bias", biases[0]), seen[fn])
        else:
            seen[fn] = add((kind, weights[0] if weights else ""), sources)
        return seen[fn]

    visit(output.grad_fn)
    return graph
