"""What one traversal works on, in the order of its levels.

Dimensions: N nodes, D hidden, J width inside the message MLPs.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    """Of both message MLPs: w1 [J, D], b1 [J], w2 [2D, J], b2 [2D], the first D outputs being the direct message.

    Of the input half of the GRU: w_ih [3D, D], b_ih [3D].
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w_ih: Tensor
    b_ih: Tensor


class State(NamedTuple):
    """h0 [N, D] before and gates_h [N, 3D], the recurrent half of the GRU, are given; the loop fills the rest.

    heard [N, D]: messages received. gates [N, 3D]: reset, update and new. h [N, D]: the states after. inner [N, J] and
    said [N, 2D]: hidden layer and output of the message MLPs.
    """

    h0: Tensor
    gates_h: Tensor
    heard: Tensor
    gates: Tensor
    h: Tensor
    inner: Tensor
    said: Tensor
