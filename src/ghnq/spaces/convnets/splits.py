"""The splits: pure functions of (split, index), disjoint because each structure hash belongs to one split only."""

from __future__ import annotations

from operator import index as as_integer
from typing import SupportsIndex

from ghnq.errors import SpaceError, nearest
from ghnq.spaces.convnets.profiles import PROFILES, WIDE_SHARE, WIDE_TRAIN, Profile
from ghnq.spaces.convnets.random_draws import RandomStream
from ghnq.spaces.convnets.sampling import is_acceptable, sample
from ghnq.spaces.convnets.specs import Spec

SPLITS: dict[str, int] = {
    "train": 250_000,
    "val": 500,
    "test": 500,
    "deep": 100,
    "wide": 100,
    "dense": 100,
    "bnfree": 100,
}
# Of every hundred structure hashes, those each split may use. Changing a number changes the published splits.
_SHARES: dict[str, int] = {"train": 58, "val": 7, "test": 7, "deep": 7, "wide": 7, "dense": 7, "bnfree": 7}
_OWNERS: tuple[str, ...] = tuple(split for split, share in _SHARES.items() for _ in range(share))
_VERSION = "convnets/1"
_MAX_ATTEMPTS = 20_000


def split_of_hash(structure_hash: str) -> str:
    """Returns the one split that a structure hash (hex) may belong to."""
    return _OWNERS[int(structure_hash, 16) % 100]


def spec(split: str, index: SupportsIndex) -> Spec:
    """Returns member `index` of a split. Raises SpaceError for an unknown split, and an index that it does not have.

    >>> spec("test", 17).structure_hash == spec("test", 17).structure_hash
    True
    """
    number = _checked(split, index)
    rng = RandomStream(f"{_VERSION}/{split}/{number}")
    profile = _profile(split, number)
    for _ in range(_MAX_ATTEMPTS):
        drawn = sample(rng, profile)
        if drawn is not None and split_of_hash(drawn.structure_hash) == split and is_acceptable(rng, profile, drawn):
            return drawn
    raise AssertionError(f"no member of {split}/{number} in {_MAX_ATTEMPTS} draws: its profile excludes itself")


def _profile(split: str, number: int) -> Profile:
    """Returns the profile of a member: that of its split, or for a share of `train` that of its wide members."""
    # A stream of its own leaves the draws of all other members as they are.
    if split == "train" and RandomStream(f"{_VERSION}/{split}/{number}/profile").bernoulli(WIDE_SHARE):
        return WIDE_TRAIN
    return PROFILES[split]


def _checked(split: str, index: SupportsIndex) -> int:
    if split not in SPLITS:
        raise SpaceError(
            f"the space convnets has no split {split!r}{nearest(str(split), SPLITS)}; it has {', '.join(SPLITS)}"
        )
    try:
        if isinstance(index, bool):
            raise TypeError
        number = as_integer(index)
    except TypeError:
        raise SpaceError(f"the index of convnets/{split} must be an integer, not {index!r}") from None
    if not 0 <= number < SPLITS[split]:
        raise SpaceError(f"convnets/{split} has the indices 0 to {SPLITS[split] - 1}, not {number}")
    return number
