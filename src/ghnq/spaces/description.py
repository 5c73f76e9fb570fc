"""How a space is distributed: sizes and ops of its members, split by split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ghnq.errors import SpaceError
from ghnq.progress import ProgressCallback
from ghnq.spaces.cost import Cost
from ghnq.spaces.space import S, Space

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

    Attributes:
        size: The number of members of the split.
        samples: How many are described here: the first ones.
        measures: For each key of `MEASURES` the values, one per member.
        families: The number of described members of each family.
        ops: The mean number of nodes of each op in a member's graph.
    """

    split: str
    size: int
    samples: int
    measures: Mapping[str, tuple[int, ...]]
    families: Mapping[str, int]
    ops: Mapping[str, float]

    def quantile(self, measure: str, probability: float) -> float:
        """Returns a quantile of a measure."""
        return float(np.quantile(self.measures[measure], probability))

    def to_dict(self) -> dict[str, object]:
        """Returns the document for JSON: quantiles and means instead of single values."""
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
    """Samples of all splits of a space.

    Attributes:
        space: The name of the space.
        families: Its families.
        splits: One description per split.
        input_shape: (channels, height, width) of the images that members are measured for.
        num_classes: The number of classes that they are measured for.
    """

    space: str
    families: tuple[str, ...]
    splits: tuple[SplitDescription, ...]
    input_shape: tuple[int, int, int]
    num_classes: int

    def to_dict(self) -> dict[str, object]:
        """Returns the document for JSON: one entry per split, with quantiles (p0, p5, ..., p100) and means."""
        return {
            "space": self.space,
            "input_shape": list(self.input_shape),
            "num_classes": self.num_classes,
            "splits": [split.to_dict() for split in self.splits],
        }


def describe(
    space: Space[S],
    samples: int = 2000,
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    progress: ProgressCallback | None = None,
) -> Description:
    """Measures the first `samples` members of `train` and a tenth as many (at least 20) of every other split.

    Args:
        progress: Called with the number of members measured.

    Raises:
        SpaceError: `samples` is less than 1.
    """
    if samples < 1:
        raise SpaceError(f"describe needs at least 1 sample, not {samples}")
    counts = {
        split: min(size, samples if split == "train" else max(20, samples // 10))
        for split, size in space.splits.items()
    }
    splits, done = [], 0
    for split, count in counts.items():
        families: Counter[str] = Counter()
        costs: list[Cost] = []
        for index in range(count):
            spec = space.spec(split, index)
            families[str(space.traits(spec)["family"])] += 1
            costs.append(space.cost(spec, input_shape=input_shape, num_classes=num_classes))
            done += 1
            if progress is not None:
                progress(done, sum(counts.values()))
        splits.append(_describe_split(split, space.splits[split], families, costs))
    return Description(space.name, space.families, tuple(splits), input_shape, num_classes)


def summarize(space: Space[S], spec: S) -> dict[str, object]:
    """Returns one architecture for JSON: family, hash, size at 3x32x32 with 10 classes, and the spec itself."""
    cost = space.cost(spec)
    return {
        "family": space.traits(spec)["family"],
        "structure_hash": spec.structure_hash,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "depth": cost.depth,
        "width": cost.width,
        "nodes": cost.nodes,
        "ops": dict(sorted(cost.ops.items())),
        "spec": json.loads(spec.to_json()),
    }


def _describe_split(split: str, size: int, families: Counter[str], costs: list[Cost]) -> SplitDescription:
    totals: Counter[str] = Counter()
    for cost in costs:
        totals.update(cost.ops)
    return SplitDescription(
        split=split,
        size=size,
        samples=len(costs),
        measures={name: tuple(getattr(cost, name) for cost in costs) for name in MEASURES},
        families=dict(families.most_common()),
        ops={op: total / len(costs) for op, total in totals.most_common()},
    )
