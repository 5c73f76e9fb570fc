"""The interface of an encoder of graphs.

Dimensions: N nodes of all graphs, D hidden.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ghnq.graph.batching.batch import GraphBatch


class Encoder(Protocol):
    """Node embeddings -> node embeddings, by whatever the nodes of a graph exchange.

    An encoder is an `nn.Module`, built from a `GHNConfig` by its entry in `ENCODERS`.
    """

    def forward(self, h_ND: Tensor, batch: GraphBatch) -> Tensor:
        """Updates the embeddings of all nodes.

        Args:
            h_ND: Embeddings [N, D] of op and shape, graph by graph in the order of `batch.graphs`, on any device.
            batch: The graphs; traversals and pairs of nodes are computed when they are first asked for.

        Returns:
            Embeddings [N, D] of the same order, type and device, new memory. Those of a graph depend on this graph and
            on the encoder's parameters, and not on the other graphs of the batch. They are differentiable once with
            respect to `h_ND` and the parameters.
        """
        ...

    def __call__(self, h_ND: Tensor, batch: GraphBatch) -> Tensor:
        """Calls `forward`, as of every `nn.Module`."""
        ...
