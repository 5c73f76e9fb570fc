"""One row of the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, get_type_hints


class Row(TypedDict):
    """One architecture under one scheme.

    `correct` counts images; an image with a NaN or infinite logit is counted in `nonfinite` and is not correct.
    """

    split: str
    index: int
    structure_hash: str
    scheme: str
    protocol: str
    correct: int
    images: int
    nonfinite: int
    parameters: int
    multiply_adds: int


_SMALL = ("index", "correct", "images", "nonfinite")


def is_row(value: Mapping[str, object]) -> bool:
    """Returns whether a mapping has the keys of a row, values of their types, and counts that a table can hold."""
    types = get_type_hints(Row)
    if value.keys() != types.keys() or any(type(value[key]) is not kind for key, kind in types.items()):
        return False
    counts = {key: number for key, number in value.items() if isinstance(number, int)}
    fits = all(0 <= number < 2 ** (31 if key in _SMALL else 63) for key, number in counts.items())
    return fits and counts["images"] > 0 and counts["correct"] + counts["nonfinite"] <= counts["images"]
