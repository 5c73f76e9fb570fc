"""Names of the tensors that make the weights of a program, from which the names of its layers are read.

`layers.features.0.weight`, with the scale and zero point beside it: the state dict of a program is nested as that of
the network, so that the names of the layers `a.b` and `a_b` differ. Other tensors have names without a dot.
"""

from __future__ import annotations

from torch import fx

from ghnq.deploy.graph.rewriter import GraphBuilder, node_argument
from ghnq.deploy.graph.supported_ops import LAYERS

_ROLES = ("weight", "weight_scale", "weight_zero")


def name_by_layer(graph: GraphBuilder) -> None:
    """Renames what the weights of a graph are dequantized from after the layers, `meta["layer"]`, that read them."""
    root = "layers"
    while root in graph.tensors:
        root += "_"
    for layer in (node for node in graph.graph.nodes if node.target in LAYERS):
        weight = node_argument(layer, 1)
        sources = [weight] if weight.op == "get_attr" else weight.all_input_nodes
        for source, role in zip(sources, _ROLES, strict=False):
            graph.rename(source, f"{root}.{layer.meta['layer']}.{role}")


def layer_name(tensor: str) -> str:
    """Returns the layer to which a tensor of a weight belongs."""
    inner = nested_name(tensor)
    if inner is not None:
        return inner.rpartition(".")[0]
    # Of a file that an earlier version wrote, with underscores in place of the dots.
    return tensor.rstrip("_").removesuffix("_scale").removesuffix("_weight")


def nested_name(tensor: str) -> str | None:
    """Returns the name without the root of all weights; None for other tensors."""
    _, dot, inner = tensor.partition(".")
    return inner if dot else None


def is_weight_scale(node: fx.Node) -> bool:
    """Returns whether a node reads the scales of a weight."""
    return str(node.target).rstrip("_").endswith("weight_scale")
