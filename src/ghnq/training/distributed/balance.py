"""Assignment of the networks of a step to processes: by cost, so that none waits long for another, or fixed."""

from __future__ import annotations

from collections.abc import Sequence

from ghnq.spaces import Cost

NODE_OVERHEAD = 1.8e6
"""Multiply-adds that take as long as the overhead of one node, fitted to small networks on a processor core."""


def training_cost(cost: Cost, batch_size: int) -> float:
    """Returns how long a network takes to train on a batch, in multiply-adds."""
    return cost.multiply_adds * batch_size + NODE_OVERHEAD * cost.nodes


def balance_by_cost(costs: Sequence[float], world_size: int) -> list[int]:
    """Returns the rank that trains each network: the most expensive first, each to the rank with the least to do.

    The same arguments give the same answer in every process. No rank is without a network if there are at least as many
    networks as ranks and costs are positive. An architecture that is reused may be assigned to another rank than the
    one that has built it: keeping it there would cost more, in waiting, than it saves, in tracing.
    """
    loads, ranks = [0.0] * world_size, [0] * len(costs)
    for network in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        chosen = min(range(world_size), key=lambda rank: (loads[rank], rank))
        ranks[network] = chosen
        loads[chosen] += costs[network]
    return ranks


def assign_fixed(indices: Sequence[int], world_size: int) -> list[int]:
    """Returns the rank that trains each architecture, the same in every step, so that cached graphs are used again.

    Where that leaves a rank without a network, it gets the last one of the rank that has most.
    """
    ranks = [index % world_size for index in indices]
    for rank in set(range(world_size)) - set(ranks):
        most = max(ranks, key=ranks.count)
        ranks[len(ranks) - 1 - ranks[::-1].index(most)] = rank
    return ranks
