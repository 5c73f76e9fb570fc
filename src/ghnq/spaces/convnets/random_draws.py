"""Reproducible draws: the same seed gives the same draws in every process, on every platform, with every numpy."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 128


class Dice:
    """Draws from the raw stream of PCG64, which numpy guarantees not to change (its Generator methods may)."""

    def __init__(self, seed: str) -> None:
        digest = hashlib.sha256(seed.encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest[:16], "big"))
        self._numbers: list[float] = []

    def number(self) -> float:
        """A number from [0, 1) with 53 random bits."""
        if not self._numbers:
            self._numbers = ((self._bits.random_raw(_BLOCK) >> np.uint64(11)) * 2.0**-53).tolist()
        return self._numbers.pop()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.number() < probability

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self.number() * (high - low + 1))

    def weighted(self, table: Weighted[T]) -> T:
        """One of the options of a weighted table."""
        return table.options[bisect_right(table.cumulative, self.number() * table.total)]


class Weighted(Generic[T]):
    """Options and their weights; the weights need not sum to 1."""

    def __init__(self, weights: Mapping[T, float]) -> None:
        self.options = tuple(weights)
        sums = list(accumulate(weights.values()))
        # The last bound is left out: a number above all the others falls to the last option.
        self.cumulative, self.total = sums[:-1], sums[-1]
