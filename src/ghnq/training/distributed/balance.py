"""Which process trains which network of a step: so that none waits long for another, or so that it comes back."""

from __future__ import annotations

from collections.abc import Sequence

from ghnq.spaces import Cost

NODE = 1.8e6
"""Multiply-adds that take as long as the overhead of one node, fitted to small networks on a processor core."""


def effort(cost: Cost, batch_size: int) -> float:
    """How long a network takes to train on a batch, in multiply-adds."""
    return cost.multiply_adds * batch_size + NODE * cost.nodes


def spread(efforts: Sequence[float], ranks: int) -> list[int]:
    """The process (0 <= p < ranks) of each network: longest first, each to the process with the least to do.

    The same arguments give the same answer everywhere. None is left without a network if there are as many of them, and
    efforts are above 0. An architecture that is reused may meet another process than the one that has it built: keeping
    it where it is would cost more, in waiting, than it saves, in tracing.
    """
    loads, owners = [0.0] * ranks, [0] * len(efforts)
    for network in sorted(range(len(efforts)), key=lambda i: (-efforts[i], i)):
        owner = min(range(ranks), key=lambda rank: (loads[rank], rank))
        owners[network] = owner
        loads[owner] += efforts[network]
    return owners


def homes(indices: Sequence[int], ranks: int) -> list[int]:
    """The process of each architecture, the same in every step, so that what it keeps of it is of use again.

    Where that leaves a process without a network, it gets the last one of the process that has most.
    """
    owners = [index % ranks for index in indices]
    for rank in set(range(ranks)) - set(owners):
        most = max(owners, key=owners.count)
        owners[len(owners) - 1 - owners[::-1].index(most)] = rank
    return owners
