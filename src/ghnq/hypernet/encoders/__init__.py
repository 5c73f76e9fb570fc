"""Encoders: node embeddings and a graph batch in, node embeddings out."""

from collections.abc import Callable

from torch import nn

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.encoders.gatedgnn import GatedGNN
from ghnq.hypernet.encoders.graphormer import Graphormer
from ghnq.hypernet.encoders.mlp import NodeMLP

ENCODERS: dict[str, Callable[[GHNConfig], nn.Module]] = {
    "gatedgnn": lambda c: GatedGNN(hidden=c.hidden, virtual_edges=c.virtual_edges),
    "graphormer": lambda c: Graphormer(
        hidden=c.hidden, layers=c.layers, heads=c.num_heads, virtual_edges=c.virtual_edges
    ),
    "mlp": lambda c: NodeMLP(hidden=c.hidden),
}
