"""The embedding of the precision at which parameters will be run: bits of weight and input activation, granularity.

The published GHN-Q and GHN-QAT (arXiv 2208.12489, 2309.13773) have no such input; it is ours. Bit-widths enter
as numbers, not as rows of a table, so a width between two trained ones lies between them.

Dimensions: N nodes, D hidden, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghnq.graph.ir import ArchGraph
from ghnq.graph.ops import KERNEL_OPS
from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.scheme import QuantScheme

FEATURES = 8
_PER_TENSOR = 7


class PrecisionEmbedding(nn.Module):
    """Features [N, F] -> [N, D]; zero for nodes without parameters, and before training zero for all."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, hidden)
        # A granularity that does not occur in training must have no effect.
        with torch.no_grad():
            self.inner.weight[:, _PER_TENSOR].zero_()
        self.outer = nn.Linear(hidden, hidden)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Tensor) -> Tensor:
        return torch.as_tensor(self.outer(torch.relu(self.inner(features))) * features[:, :1])


def precision_features(graphs: Sequence[ArchGraph], schemes: Sequence[QuantScheme]) -> Tensor:
    """Returns features [N, F] of the nodes of all graphs, each under its scheme; zeros for nodes without parameters.

    Of the others: 1, weight (quantized, bits / 8, 2^(2 - bits)), activation (the same), quantized per tensor.
    """
    rows: list[list[float]] = []
    for graph, scheme in zip(graphs, schemes, strict=True):
        per_tensor = float(scheme.weight_granularity == "tensor")
        found: dict[LayerBits, list[float]] = {}
        owners = {parameter.node for parameter in graph.parameters}
        for i in range(len(graph)):
            if i not in owners:
                rows.append([0.0] * FEATURES)
                continue
            bits = scheme.bits_for(layer_of(graph, i)) if scheme.overrides else scheme.bits
            if bits not in found:
                found[bits] = [1.0, *_side(bits.weight), *_side(bits.activation), per_tensor]
            rows.append(found[bits])
    return torch.tensor(rows)


def layer_of(graph: ArchGraph, node: int) -> str:
    """Returns the name of the layer that a node belongs to; a norm belongs to the convolution it is folded into."""
    at = node
    while graph.nodes[at].op in ("bn", "ln", "bias") and len(graph.predecessors[at]) == 1:
        at = graph.predecessors[at][0]
        if graph.nodes[at].op in KERNEL_OPS:
            return graph.nodes[at].name
    return graph.nodes[node].name


def _side(bits: int | None) -> tuple[float, float, float]:
    return (0.0, 0.0, 0.0) if bits is None else (1.0, bits / 8, 2.0 ** (2 - bits))
