"""Reproducible random numbers: equal seeds give equal numbers in every process, platform and version of numpy."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 128


class RandomStream:
    """Draws from the raw stream of PCG64, which numpy guarantees not to change (the methods of its Generator may)."""

    def __init__(self, seed: str) -> None:
        digest = hashlib.sha256(seed.encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest[:16], "big"))
        self._numbers: list[float] = []

    def uniform(self) -> float:
        """Returns a number from [0, 1) with 53 random bits."""
        if not self._numbers:
            self._numbers = ((self._bits.random_raw(_BLOCK) >> np.uint64(11)) * 2.0**-53).tolist()
        return self._numbers.pop()

    def bernoulli(self, probability: float) -> bool:
        """Returns True with the given probability."""
        return self.uniform() < probability

    def integer(self, low: int, high: int) -> int:
        """Returns an integer from low to high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def choice(self, distribution: Categorical[T]) -> T:
        """Returns one of the options of a categorical distribution."""
        return distribution.options[bisect_right(distribution.cumulative, self.uniform() * distribution.total)]


class Categorical(Generic[T]):
    """A categorical distribution: options and their weights, which need not sum to 1."""

    def __init__(self, weights: Mapping[T, float]) -> None:
        self.options = tuple(weights)
        sums = list(accumulate(weights.values()))
        # Without the last bound, so that a number above all others selects the last option.
        self.cumulative, self.total = sums[:-1], sums[-1]
