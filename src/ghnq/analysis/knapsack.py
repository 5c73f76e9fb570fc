"""One choice for every item, least loss within a budget: the multiple-choice knapsack, solved exactly.

States (cost so far, loss so far) are carried from item to item; of those, only such are kept that nothing else beats in
both, and that can still end better than the best known answer. The bound is Lagrangian: for any multiplier m >= 0,
loss + m (cost - budget), minimised item by item, is never above the loss of a choice within the budget (Sinha &
Zoltners 1979, Operations Research 27(3)). So nothing is lost, and few states remain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_DOUBLINGS = 60


def choose(costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], budget: float) -> list[int] | None:
    """Returns the option of each item with the least sum of losses whose costs sum to at most `budget`.

    costs, losses: one sequence per item, one number per option, costs exact in float64 (integers). None where even the
    cheapest options exceed the budget. Of equal losses the cheaper choice is taken.
    """
    items = [(np.asarray(c, dtype=np.float64), _finite(losses)[n]) for n, c in enumerate(costs)]
    if sum(cost.min() for cost, _ in items) > budget:
        return None
    multiplier, best = _bound(items, budget)
    # What the items from here on add at least, to cost alone and to loss + multiplier * cost.
    least_cost = _suffix([float(cost.min()) for cost, _ in items])
    least = _suffix([float((loss + multiplier * cost).min()) for cost, loss in items])
    slack = 1e-9 * (1 + abs(best))
    cost, loss = np.zeros(1), np.zeros(1)
    trail: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for number, (item_cost, item_loss) in enumerate(items):
        new_cost = (cost[:, None] + item_cost).ravel()
        new_loss = (loss[:, None] + item_loss).ravel()
        bound = new_loss + multiplier * (new_cost - budget) + least[number + 1]
        alive = np.flatnonzero((new_cost + least_cost[number + 1] <= budget) & (bound <= best + slack))
        kept = alive[_front(new_cost[alive], new_loss[alive])]
        trail.append((kept // len(item_cost), kept % len(item_cost)))
        cost, loss = new_cost[kept], new_loss[kept]
    state = int(np.lexsort((cost, loss))[0])
    picks = []
    for parents, options in reversed(trail):
        picks.append(int(options[state]))
        state = int(parents[state])
    return picks[::-1]


def _finite(losses: Sequence[Sequence[float]]) -> list[Floats]:
    """Infinite losses become larger than any sum of finite ones, so that they can still be added and compared."""
    arrays = [np.asarray(loss, dtype=np.float64) for loss in losses]
    largest = sum(float(np.abs(loss[np.isfinite(loss)]).max(initial=0)) for loss in arrays)
    return [np.where(np.isfinite(loss), loss, 10 * (1 + largest)) for loss in arrays]


def _front(cost: Floats, loss: Floats) -> npt.NDArray[np.int64]:
    """Positions of the states that no other beats in cost and loss, by rising cost."""
    order = np.lexsort((loss, cost))
    ordered = loss[order]
    before = np.concatenate(([np.inf], np.minimum.accumulate(ordered)[:-1]))
    return order[ordered < before]


def _bound(items: list[tuple[Floats, Floats]], budget: float) -> tuple[float, float]:
    """(multiplier, loss of a choice within the budget), by bisection on the multiplier."""
    cheapest = sum(float(loss[_first_least(cost, loss)]) for cost, loss in items)
    if (free := _relaxed(items, 0.0))[0] <= budget:
        return 0.0, free[1]
    low, high, best = 0.0, 1e-12, cheapest
    for _ in range(2 * _DOUBLINGS):
        if _relaxed(items, high)[0] <= budget:
            break
        low, high = high, 2 * high
    for _ in range(_DOUBLINGS):
        middle = (low + high) / 2
        cost, loss = _relaxed(items, middle)
        if cost <= budget:
            high, best = middle, min(best, loss)
        else:
            low = middle
    return high, best


def _relaxed(items: list[tuple[Floats, Floats]], multiplier: float) -> tuple[float, float]:
    """(cost, loss) where each item minimises loss + multiplier * cost on its own; of equals the cheaper."""
    picks = [_first_least(loss + multiplier * cost, cost) for cost, loss in items]
    pairs = list(zip(items, picks, strict=True))
    return sum(float(c[pick]) for (c, _), pick in pairs), sum(float(x[pick]) for (_, x), pick in pairs)


def _first_least(values: Floats, then: Floats) -> int:
    return int(np.lexsort((then, values))[0])


def _suffix(values: list[float]) -> list[float]:
    sums = [0.0]
    for value in reversed(values):
        sums.append(sums[-1] + value)
    return sums[::-1]
