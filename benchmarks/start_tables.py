"""Tables of benchmarks/finetune_start.py: accuracy from predicted and from random weights, with standard errors.

Where there are several rates of a start, the one that is best on held-out training images is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from statistics import mean, stdev
from typing import Any

Row = dict[str, Any]
Group = tuple[str, int, str, int]


def short(architecture: str) -> str:
    """Returns an architecture without space and folders."""
    return architecture.rpartition(":")[2].removeprefix("convnets/")


@dataclass(frozen=True)
class Comparison:
    """Two starts at one budget: mean accuracies over the seeds that both have, percent, and their difference."""

    predicted: float
    kaiming: float
    seeds: int
    error: float

    @classmethod
    def of(cls, predicted: dict[int, float], kaiming: dict[int, float], images: int) -> Comparison | None:
        """Returns the comparison; its standard error is that of the seeds and that of the number of test images."""
        seeds = sorted(predicted.keys() & kaiming.keys())
        if not seeds:
            return None
        a, b = mean(predicted[seed] for seed in seeds), mean(kaiming[seed] for seed in seeds)
        differences = [predicted[seed] - kaiming[seed] for seed in seeds]
        of_seeds = stdev(differences) ** 2 / len(seeds) if len(seeds) > 1 else 0.0
        of_images = (a * (100 - a) + b * (100 - b)) / images
        return cls(a, b, len(seeds), math.sqrt(of_seeds + of_images))

    def __str__(self) -> str:
        return f"{self.predicted:.1f} / {self.kaiming:.1f}, {self.predicted - self.kaiming:+.1f} ± {self.error:.1f}"


def tables(rows: Iterable[Row], start: str = "predicted") -> Iterator[str]:
    """Yields the lines of a table for each scheme and number of images, and what the predicted start saves."""
    found = comparisons(rows, start)
    budgets = sorted({budget for each in found.values() for budget in each})
    for (scheme, images), groups in groupby(sorted(found), key=lambda group: group[:2]):
        yield f"\n{scheme}, {images:,} images; predicted / Kaiming, difference ± standard error\n"
        yield (
            "| architecture | "
            + " | ".join(f"{budget:g} epoch{'s' * (budget != 1)}" for budget in budgets)
            + " | Kaiming needs |"
        )
        yield "|---|" + "--:|" * (len(budgets) + 1)
        for group in groups:
            each = found[group]
            cells = [str(each[budget]) if budget in each else "" for budget in budgets]
            yield f"| `{group[2]}` | " + " | ".join(cells) + f" | {needed(each)} |"


def comparisons(rows: Iterable[Row], start: str) -> dict[Group, dict[float, Comparison]]:
    """Returns the comparisons of each scheme, number of images, architecture and number of test images, by budget."""
    accuracies: dict[Group, dict[float, dict[str, dict[int, list[Row]]]]] = {}
    for row in rows:
        group = (row["scheme"], row["images"], short(row["architecture"]), row["test_images"])
        starts = accuracies.setdefault(group, {}).setdefault(row["epochs"], {})
        starts.setdefault(row["start"], {}).setdefault(row["seed"], []).append(row)
    found: dict[Group, dict[float, Comparison]] = {}
    for group, budgets in accuracies.items():
        for budget, starts in budgets.items():
            best = {name: {seed: chosen(each) for seed, each in seeds.items()} for name, seeds in starts.items()}
            comparison = Comparison.of(best.get(start, {}), best.get("kaiming", {}), group[3])
            if comparison is not None:
                found.setdefault(group, {})[budget] = comparison
    return found


def needed(budgets: dict[float, Comparison]) -> str:
    """Returns the epochs that random weights need to reach what predicted ones have after one, as far as measured."""
    if 1.0 not in budgets:
        return ""
    reached = [budget for budget, each in budgets.items() if each.kaiming >= budgets[1.0].predicted]
    return f"≤ {min(reached):g}" if reached else f"> {max(budgets):g}"


def chosen(rows: list[Row]) -> float:
    """Returns the accuracy on test images at the rate that is best on held-out images."""
    best = max(rows, key=lambda row: row["val"] if row["val"] is not None else row["test"])
    return float(best["test"])
