"""The tables of docs/results/ranking.md, from the document of `benchmarks/ranking_study.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]


def fill(page: str, document: Document) -> str:
    """Returns the page with what stands between `<!-- STUDY name -->` and `<!-- END -->` made anew."""

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}{chr(10).join(TABLES[match[2]](document))}\n{match[3]}"

    return re.sub(r"(<!-- STUDY (\w+) -->\n).*?(<!-- END -->)", filled, page, flags=re.DOTALL)


def truth(document: Document) -> Iterator[str]:
    yield "| class | networks | float | after training through w4a4 | drop where only quantized |"
    yield "|---|---|---|---|---|"
    for each in document["classes"]:
        cells = [spread(each[name]) for name in ("float", "w4a4", "drop")]
        yield f"| {each['class']} | {each['networks']} | {' | '.join(cells)} |"


def spread(values: list[float]) -> str:
    mean, deviation, low, high = values
    return f"{mean:.1f} ± {deviation:.1f} ({low:.1f} to {high:.1f})"


def stability(document: Document) -> Iterator[str]:
    yield "| tau of | all | within a budget |"
    yield "|---|---|---|"
    for name, taus in document["stability"].items():
        yield f"| {name} | {taus['all']:.2f} | {taus['within']:.2f} |"


def signals(document: Document) -> Iterator[str]:
    headings = ("signal", "networks", "within a budget", "all", "named", "within, for float", "best of first 5 loses")
    yield f"| {' | '.join(headings)} | first 10 of 40 | seconds |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in sorted(document["signals"], key=lambda row: -row["within_budget"]):
        named = "" if row["named"] is None else f"{row['named']:.2f}"
        yield (
            f"| {row['signal']} | {row['networks']} | {interval(row['within_budget'], row['within_interval'])} | "
            f"{interval(row['tau'], row['interval'])} | {named} | {row['float']:.2f} | {row['lost_by_top_5']:.1f} | "
            f"{row['mean_of_first_10']:.1f} | {row['cpu_seconds']:.1f} |"
        )


def interval(value: float, bounds: list[float]) -> str:
    return f"{value:.2f} ({bounds[0]:.2f} to {bounds[1]:.2f})"


TABLES: Mapping[str, Callable[[Document], Iterator[str]]] = {
    "truth": truth,
    "stability": stability,
    "signals": signals,
}
