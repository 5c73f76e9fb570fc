"""How the space is distributed: what its members cost and are made of, split by split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ghnq.errors import SpaceError
from ghnq.spaces.convnets.cost import Cost, cost
from ghnq.spaces.convnets.specs import Spec
from ghnq.spaces.convnets.splits import SPLITS, spec

MEASURES: Mapping[str, str] = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "depth": "depth (weighted layers)",
    "width": "width (channels)",
    "nodes": "graph nodes",
}
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class SplitDescription:
    """A sample of one split.

    size: members of the split; samples: how many are described here, the first ones.
    measures: for every key of `MEASURES` the values, one per member. families: members per family.
    ops: mean number of nodes of each op in a member's graph.
    """

    split: str
    size: int
    samples: int
    measures: Mapping[str, tuple[int, ...]]
    families: Mapping[str, int]
    ops: Mapping[str, float]

    def quantile(self, measure: str, probability: float) -> float:
        """The quantile of a measure."""
        return float(np.quantile(self.measures[measure], probability))

    def to_dict(self) -> dict[str, Any]:
        """Quantiles and means instead of single values, as JSON can hold them."""
        summary = {
            measure: {
                "mean": round(float(np.mean(values)), 3),
                **{f"p{round(100 * level)}": round(self.quantile(measure, level), 3) for level in _QUANTILES},
            }
            for measure, values in self.measures.items()
        }
        return {
            "split": self.split,
            "size": self.size,
            "samples": self.samples,
            **summary,
            "families": dict(self.families),
            "ops": {op: round(mean, 3) for op, mean in self.ops.items()},
        }


@dataclass(frozen=True, slots=True)
class Description:
    """Samples of all splits, for images of `input_shape` (channels, height, width) and `num_classes`."""

    splits: tuple[SplitDescription, ...]
    input_shape: tuple[int, int, int]
    num_classes: int

    def to_dict(self) -> dict[str, Any]:
        """A document for JSON: one entry per split, with quantiles (p0, p5, ..., p100) and means."""
        return {
            "space": "convnets",
            "input_shape": list(self.input_shape),
            "num_classes": self.num_classes,
            "splits": [split.to_dict() for split in self.splits],
        }


def describe(
    samples: int = 2000,
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    progress: Callable[[str, int, int], None] | None = None,
) -> Description:
    """Measures the first `samples` members of `train` and a tenth as many (at least 20) of every other split.

    progress: called with (split, members done, members in all). Raises SpaceError for less than one sample.
    """
    if samples < 1:
        raise SpaceError(f"describe needs at least 1 sample, not {samples}")
    splits = []
    for split, size in SPLITS.items():
        count = min(size, samples if split == "train" else max(20, samples // 10))
        members: list[tuple[Spec, Cost]] = []
        for index in range(count):
            member = spec(split, index)
            members.append((member, cost(member, input_shape=input_shape, num_classes=num_classes)))
            if progress is not None:
                progress(split, index + 1, count)
        splits.append(_describe_split(split, size, members))
    return Description(tuple(splits), input_shape, num_classes)


def summary(member: Spec) -> dict[str, Any]:
    """One member for JSON: family, hash, size at 3x32x32 with 10 classes, and the spec itself."""
    price = cost(member)
    return {
        "family": member.family,
        "structure_hash": member.structure_hash,
        "parameters": price.parameters,
        "multiply_adds": price.multiply_adds,
        "depth": price.depth,
        "width": price.width,
        "nodes": price.nodes,
        "ops": dict(sorted(price.ops.items())),
        "spec": member.model_dump(mode="json"),
    }


def _describe_split(split: str, size: int, members: list[tuple[Spec, Cost]]) -> SplitDescription:
    totals: Counter[str] = Counter()
    for _, price in members:
        totals.update(price.ops)
    count = len(members)
    return SplitDescription(
        split=split,
        size=size,
        samples=count,
        measures={name: tuple(getattr(price, name) for _, price in members) for name in MEASURES},
        families=dict(Counter(member.family for member, _ in members).most_common()),
        ops={op: total / count for op, total in totals.most_common()},
    )
