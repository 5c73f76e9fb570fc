"""Buckets of shapes against a search that tries every bucket."""

import pytest

from ghnq.hypernet.node_embedding import bucket_table, channel_buckets, spatial_buckets


def nearest_bucket(size: int, buckets: list[int]) -> int:
    return min(range(len(buckets)), key=lambda i: (abs(buckets[i] - size), i))


@pytest.mark.parametrize("classes", [2, 10, 37, 1000])
def test_every_channel_count_has_its_nearest_bucket(classes: int) -> None:
    buckets = channel_buckets(classes)
    table = bucket_table(buckets, dict.fromkeys(range(4, 8), 8))
    assert buckets == sorted(set(buckets))
    assert table[0] == len(buckets)
    for size in range(1, buckets[-1] + 2):
        expected = buckets.index(8) if 4 <= size < 8 else nearest_bucket(size, buckets)
        assert table[size] == expected, size


def test_spatial_buckets_treat_two_as_three() -> None:
    buckets = spatial_buckets(7)
    table = bucket_table(buckets, {2: 3})
    assert buckets == [1, 3, 5, 7, 9, 11, 14, 16]
    assert table[2] == table[3] == 1
    assert [int(table[s]) for s in (1, 5, 7, 8, 12, 13, 16, 17)] == [0, 2, 3, 3, 5, 6, 7, 7]
