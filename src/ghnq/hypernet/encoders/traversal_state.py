"""The weights and buffers of one traversal, in the order of its levels.

Dimensions: N nodes, D hidden, J width inside the message MLPs.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TraversalWeights(NamedTuple):
    """Weights that a level multiplies with.

    Attributes:
        w1: First layer of both message MLPs, [J, D].
        b1: [J].
        w2: Second layer of both message MLPs, [2D, J]; the first D outputs are the direct message.
        b2: [2D].
        w_ih: Input half of the GRU, [3D, D].
        b_ih: [3D].
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w_ih: Tensor
    b_ih: Tensor


class TraversalState(NamedTuple):
    """Buffers; `h0` and `gates_h` are given, the loop over levels fills the others.

    Attributes:
        h0: Node embeddings before the traversal, [N, D].
        gates_h: Recurrent half of the GRU, [N, 3D].
        messages_in: Weighted sums of the messages each node receives, [N, D].
        gates: Reset, update and new gate, [N, 3D].
        h: Node embeddings after the traversal, [N, D].
        hidden: Hidden layer of the message MLPs, [N, J].
        messages_out: Direct and virtual message of each node, [N, 2D].
    """

    h0: Tensor
    gates_h: Tensor
    messages_in: Tensor
    gates: Tensor
    h: Tensor
    hidden: Tensor
    messages_out: Tensor
