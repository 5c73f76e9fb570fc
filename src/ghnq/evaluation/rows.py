"""One row of the results."""

from __future__ import annotations

from typing import TypedDict


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
