"""Random permutations: fixed for ever, and balanced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.data.shuffle import balanced, mix, permutation

seeds = st.integers(0, 2**63 - 1)


def splitmix_in_plain_integers(value: int) -> int:
    """Steele, Lea & Flood's finaliser, with Python's unbounded integers."""
    mask = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


@settings(max_examples=50)
@given(st.lists(seeds, min_size=1, max_size=4))
def test_mix_is_splitmix_folded(integers: list[int]) -> None:
    state = 0
    for integer in integers:
        state = splitmix_in_plain_integers(state ^ integer)
    assert mix(*integers) == state >> 1


def test_first_output_of_splitmix64_as_published() -> None:
    # The reference generator seeded with 0 starts with this number (xoshiro.di.unimi.it/splitmix64.c).
    assert splitmix_in_plain_integers(0) == 0xE220A8397B1DCDAF
    assert mix(0) == 0xE220A8397B1DCDAF >> 1


@settings(max_examples=30)
@given(st.integers(0, 500), seeds, seeds)
def test_permutation_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(permutation(size, seed, epoch)) == list(range(size))
    np.testing.assert_array_equal(permutation(size, seed, epoch), permutation(size, seed, epoch))


def test_permutation_never_changes() -> None:
    assert permutation(8, 1).tolist() == [4, 1, 2, 5, 0, 3, 7, 6]


def test_every_position_is_equally_likely() -> None:
    where_zero_lands = np.bincount([int(np.flatnonzero(permutation(5, seed) == 0)[0]) for seed in range(5000)])
    assert np.abs(where_zero_lands - 1000).max() < 5 * np.sqrt(5000 * 0.2 * 0.8)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), max_size=80), seeds)
def test_every_prefix_is_balanced(labels: list[int], seed: int) -> None:
    array = np.array(labels, dtype=np.int64)
    order = balanced(array, seed)
    assert sorted(order) == list(range(len(labels)))
    totals = np.bincount(array, minlength=6)
    for end in range(len(labels) + 1):
        counts = np.bincount(array[order[:end]], minlength=6)
        for few in range(6):
            for many in range(6):
                assert counts[many] - counts[few] <= 1 or counts[few] == totals[few]


@pytest.mark.parametrize("seed", [0, 1])
def test_order_within_a_class_is_random(seed: int) -> None:
    order = balanced(np.zeros(50, dtype=np.int64), seed)
    assert not np.array_equal(order, np.arange(50))
    assert not np.array_equal(order, balanced(np.zeros(50, dtype=np.int64), seed + 1))
