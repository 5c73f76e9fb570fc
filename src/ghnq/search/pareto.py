"""The Pareto front: what no other candidate beats in everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """Returns the names of the points that no other point dominates, in their order.

    A point dominates another if it is at least as large in every objective and larger in one. Equal points are both in
    the front.

    Args:
        points: The objectives of each point, all of them to be as large as possible.
    """
    return [name for name, point in points.items() if not any(_dominates(other, point) for other in points.values())]


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)
