"""Random permutations as pure functions of integers, the same on every machine and with every library version.

Published figures depend on splits and test subsets, so these must not depend on the random stream of a library. The
numbers come from splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", section 5).

Dimensions: B images.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(*integers: int) -> int:
    """Folds integers, in order, into one seed of 63 bits (valid for `torch.Generator.manual_seed`)."""
    state = 0
    for integer in integers:
        state = int(_splitmix(np.array([(state ^ (integer & _MASK)) & _MASK], dtype=np.uint64))[0])
    return state >> 1


def permutation(size: int, *seeds: int) -> npt.NDArray[np.int64]:
    """Returns a random permutation of 0 .. size-1, determined by `seeds`: int64 [B]."""
    keys = _splitmix(np.arange(size, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(mix(*seeds)))
    return np.argsort(keys, kind="stable").astype(np.int64)


def balanced(labels: npt.NDArray[np.int64], *seeds: int) -> npt.NDArray[np.int64]:
    """Orders images so that every prefix is balanced over classes: int64 [B] positions into `labels` [B].

    The first image of each class comes first, then the second of each, and so on, until a class is exhausted. Within
    a class, and among the classes of one round, the order is random and determined by `seeds`.
    """
    order = permutation(len(labels), *seeds)
    by_class = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_class]
    starts = np.searchsorted(sorted_labels, sorted_labels, side="left")
    rounds = np.arange(len(labels)) - starts
    tie_break = permutation(len(labels), *seeds, 1)[by_class]
    return by_class[np.lexsort((tie_break, rounds))]


def _splitmix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(_GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
