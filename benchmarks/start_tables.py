"""Tables of benchmarks/finetune_start.py: accuracy from predicted and from random weights, with standard errors.

Of several rates of a start, the one that is best on held-out training images with the first seed is shown.
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
    trained: dict[Group, dict[float, dict[str, list[Row]]]] = {}
    for row in rows:
        group = (row["scheme"], row["images"], short(row["architecture"]), row["test_images"])
        trained.setdefault(group, {}).setdefault(row["epochs"], {}).setdefault(row["start"], []).append(row)
    found: dict[Group, dict[float, Comparison]] = {}
    for group, budgets in trained.items():
        for budget, starts in budgets.items():
            best = {name: at_best_rate(each) for name, each in starts.items()}
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


def at_best_rate(rows: Iterable[Row]) -> dict[int, float]:
    """Returns the accuracy on test images by seed, percent, at the best rate; trainings differ in seed and rate."""
    rows = list(rows)
    rate = best_rate(rows)
    return {row["seed"]: float(row["test"]) for row in rows if row["rate"] == rate}


def best_rate(rows: Iterable[Row]) -> str:
    """Returns the rate that is best on held-out images (where there are none, on test images) with the first seed."""
    rows = list(rows)
    first = min(row["seed"] for row in rows)
    best = max(
        (row for row in rows if row["seed"] == first),
        key=lambda row: row["val"] if row["val"] is not None else row["test"],
    )
    return str(best["rate"])
