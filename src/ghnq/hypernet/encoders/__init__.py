"""Encoders: node embeddings -> node embeddings. `Encoder` is their interface, `ENCODERS` the registry."""

from __future__ import annotations

from collections.abc import Callable

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.encoders.encoder import Encoder
from ghnq.hypernet.encoders.gatedgnn import GatedGNN
from ghnq.hypernet.encoders.graphormer import Graphormer
from ghnq.hypernet.encoders.mlp import NodeMLP

ENCODERS: dict[str, Callable[[GHNConfig], Encoder]] = {
    "gatedgnn": lambda config: GatedGNN(hidden=config.hidden, virtual_edges=config.virtual_edges),
    "graphormer": lambda config: Graphormer(
        hidden=config.hidden, layers=config.layers, heads=config.num_heads, virtual_edges=config.virtual_edges
    ),
    "mlp": lambda config: NodeMLP(hidden=config.hidden),
}
"""Value of `encoder` in a configuration -> what builds that encoder."""
