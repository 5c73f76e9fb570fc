"""Samplers of `ghnq search` against random search at equal evaluations: hypervolume, several seeds.

    python benchmarks/search_samplers.py --minutes 20
    cp runs/search-samplers/rows.jsonl results/search/samplers/rows.jsonl
    python benchmarks/search_samplers.py --table

The objectives are real ones: accuracy at w4a8 of the network that `digits` predicts, on 64 held-out images of the
digits, and multiply-adds, at most MAX_MACS. The hypervolume is the share of the rectangle from LEAST to MAX_MACS (log
scale) and from 10 % to 100 % accuracy that the front dominates. A row is one architecture that a search has measured,
once, whichever searches propose it.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from ghnq.evaluation.engine import Processes
from ghnq.evaluation.provenance import machine, weights_hash
from ghnq.hypernet import GHN
from ghnq.memory import keep_freed_memory
from ghnq.prediction import PredictedWeights, dataset_for
from ghnq.quant import QuantScheme
from ghnq.runs.row_ledger import RowLedger
from ghnq.search.encoding.convnets import DECISIONS
from ghnq.search.limits import Limits
from ghnq.search.loop import Problem, Search
from ghnq.search.samplers import distributions, make_sampler
from ghnq.search.shared_study import SharedStudy
from ghnq.search.spec_measurer import SpecMeasurer
from ghnq.search.study import open_storage, open_study
from ghnq.search.subject import Bench, Budget
from ghnq.spaces.convnets.specs import Spec

IMAGES = 64
LEAST, MAX_MACS = 100_000, 2_000_000
STORED = Path("results/search/samplers/rows.jsonl")
OBJECTIVES = ("accuracy", "macs")
SCHEME = "w4a8"
SAMPLERS = ("random", "nsga2", "regularized-evolution")


class SearchLedger(RowLedger[tuple[str, int, int], dict[str, Any]]):
    """One row for each evaluation of a search."""

    def key(self, row: dict[str, Any]) -> tuple[str, int, int]:
        return row["sampler"], row["seed"], row["evaluation"]

    def parse(self, value: Mapping[str, Any]) -> dict[str, Any] | None:
        return dict(value) if {"sampler", "seed", "evaluation", "architecture", "accuracy"} <= value.keys() else None


@dataclass
class Evaluations:
    """Measures architectures that no search has proposed before, and remembers in which order one proposes them."""

    measurer: SpecMeasurer
    known: dict[str, float]
    made: list[dict[str, Any]] = field(default_factory=list)

    def accuracies(self, specs: Sequence[Spec]) -> Iterable[float]:
        for spec in specs:
            name = spec.structure_hash
            if name not in self.known:
                (self.known[name],) = self.measurer.values([spec])
            macs = self.measurer.sizes(spec).multiply_adds
            self.made.append({"architecture": name[:16], "accuracy": self.known[name], "multiply_adds": macs})
            yield self.known[name]


def main(
    out: Annotated[Path, typer.Option()] = Path("runs/search-samplers"),
    evaluations: Annotated[int, typer.Option()] = 60,
    seeds: Annotated[int, typer.Option()] = 5,
    minutes: Annotated[float, typer.Option(help="No search is begun after so many minutes.")] = 30.0,
    table: Annotated[bool, typer.Option("--table", help="Print the table of the stored rows.")] = False,
) -> None:
    """Makes the searches that are missing."""
    if table:
        print("\n".join(markdown(STORED)))
        return
    torch.set_num_threads(1)
    keep_freed_memory()
    ghn = GHN.from_pretrained("digits")
    dataset = dataset_for(ghn, None)
    bench = Bench.of(PredictedWeights(ghn), dataset)
    measurer = SpecMeasurer(
        "convnets", bench, (SCHEME, QuantScheme.parse(SCHEME)), "accuracy", Budget(IMAGES), Processes(1)
    )
    fingerprint = {
        "study": "search samplers", "checkpoint_sha256": weights_hash(ghn), "data_sha256": dataset.content_hash,
        "images": IMAGES, "scheme": SCHEME, "objectives": OBJECTIVES, "max_macs": MAX_MACS, "evaluations": evaluations,
    }  # fmt: skip
    known: dict[str, float] = {}
    console, end = Console(soft_wrap=True), time.monotonic() + 60 * minutes
    with SearchLedger(out, fingerprint, machine()) as ledger:
        # Random search and NSGA-II first, seed by seed.
        first = [(seed, sampler) for seed in range(seeds) for sampler in SAMPLERS[:2]]
        for seed, sampler in [*first, *((seed, sampler) for sampler in SAMPLERS[2:] for seed in range(seeds))]:
            if (sampler, seed, evaluations - 1) in ledger or time.monotonic() > end:
                continue
            start = time.process_time()
            made = search(sampler, seed, evaluations, Evaluations(measurer, known))
            ledger.add([{"sampler": sampler, "seed": seed, "evaluation": i, **each} for i, each in enumerate(made)])
            last = curve(made)[-1]
            console.print(f"{sampler} {seed}: {last:.4f}, {time.process_time() - start:.0f} s", highlight=False)


def search(sampler: str, seed: int, evaluations: int, measuring: Evaluations) -> list[dict[str, Any]]:
    """Returns the evaluations of one search, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        stored = open_study(
            open_storage(None, Path(folder)), folder, objectives=OBJECTIVES, settings={"seed": seed}, resume=False
        )
        shared = SharedStudy(stored, make_sampler(sampler, distributions(DECISIONS), seed), folder)
        limits = Limits(multiply_adds=MAX_MACS)
        problem = Problem(OBJECTIVES, measuring.measurer.sizes, measuring.accuracies, limits)
        Search(shared, problem).run(evaluations)
    return measuring.made


def curve(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns the hypervolume after each evaluation."""
    points: list[tuple[float, float]] = []
    found = []
    for row in rows:
        points.append((share_of_macs(row["multiply_adds"]), (row["accuracy"] - 10) / 90))
        found.append(hypervolume(points))
    return found


def share_of_macs(multiply_adds: int) -> float:
    return math.log(multiply_adds / LEAST) / math.log(MAX_MACS / LEAST)


def hypervolume(points: Iterable[tuple[float, float]]) -> float:
    """Returns the area that is right of and below one of the points (cost, gain), in the unit square."""
    area, best = 0.0, 0.0
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if gain > best:
            area += (1 - max(cost, 0.0)) * (gain - best)
            best = gain
    return area


def markdown(file: Path) -> Iterator[str]:
    """Yields a table of hypervolumes: mean and standard error over seeds."""
    found = dict(curves(file))
    at = range(20, len(next(iter(found.values()))[0]) + 1, 20)
    yield f"| sampler | seeds | {' | '.join(f'after {count}' for count in at)} |"
    yield f"|---|---|{'---|' * len(at)}"
    for sampler, seeds in found.items():
        cells = []
        for count in at:
            values = [each[count - 1] for each in seeds]
            cells.append(f"{mean(values):.3f} ± {stdev(values) / math.sqrt(len(values)):.3f}")
        yield f"| `{sampler}` | {len(seeds)} | {' | '.join(cells)} |"


def curves(file: Path) -> Iterator[tuple[str, list[list[float]]]]:
    """Yields each sampler that has two seeds or more, with their curves."""
    rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    for sampler in SAMPLERS:
        mine = [row for row in rows if row.get("sampler") == sampler]
        seeds = sorted({row["seed"] for row in mine})
        if len(seeds) > 1:
            yield sampler, [curve([row for row in mine if row["seed"] == seed]) for seed in seeds]


if __name__ == "__main__":
    typer.run(main)
