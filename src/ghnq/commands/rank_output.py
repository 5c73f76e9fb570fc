"""What `ghnq rank` says: the document, the table, what the order is worth, and the next commands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ghnq._version import __version__
from ghnq.commands.weight_options import ChosenWeights
from ghnq.data.read_options import current
from ghnq.evaluation.named_schemes import describe_schemes
from ghnq.recorded_names import model_names
from ghnq.search.evidence import evidence
from ghnq.search.halving import Rung
from ghnq.search.limits import OPTIONS
from ghnq.search.measuring import Measurer
from ghnq.search.ranking import Ranked, Ranking
from ghnq.search.settings import Settings
from ghnq.search.signals import worth_lines
from ghnq.search.subject import Bench, Budget

MAX_NAME = 24
"""Characters of a candidate that are not broken to the next line."""
_FOLDERS = re.compile(r"(?<![\w.])(?:~|\.\.)?/(?:[^\s/:'\"]+/)+")
"""The folders of a path in a message."""
MAX_FAILURES = 10
"""Failures that are printed; all are in the document."""


def document(
    ranking: Ranking, settings: Settings, chosen: ChosenWeights, measurer: Measurer, seed: int
) -> dict[str, object]:
    """Returns the result for JSON, with the names of models without folders."""
    worth, bench = evidence().worth(settings.by.name), measurer.bench
    names = shown_names(ranking, measurer)
    return {
        **chosen.document,
        "ghnq_version": __version__,
        **bench.dataset.record(),
        **describe_schemes(measurer.schemes),
        "schemes": list(measurer.schemes),
        "by": settings.by.name,
        "limits": {OPTIONS[name]: limit for name, limit in settings.limits.set().items()},
        "worth": {
            "tau": None if worth is None else worth.tau,
            "within_budget": None if worth is None else worth.within_budget,
            "sentences": _worth(settings, bench),
            "signals": evidence().documents(),
        },
        "seed": seed,
        "image_shape": list(bench.dataset.input_shape),
        "num_classes": bench.dataset.num_classes,
        "images": min(settings.budget.images, len(bench.measured)),
        **({"test_images": len(bench.dataset.test)} if settings.on == "test" else {}),
        "minutes": settings.budget.seconds / 60,
        "candidates": ranking.candidates,
        "filtered": {name: len(names) for name, names in ranking.filtered.taken.items()},
        "failed": [
            {"model": names[each.name], "reason": _FOLDERS.sub("", each.reason.replace(each.name, names[each.name]))}
            for each in ranking.failures
        ],
        "rounds": [
            {
                "candidates": rung.candidates,
                "by": rung.signal,
                "images": rung.budget.images,
                "seconds": rung.budget.seconds,
            }
            for rung in ranking.rungs
        ],
        "seconds": {name: round(seconds, 2) for name, seconds in ranking.seconds.items()},
        "rows": [_row(each, names[each.name]) for each in ranking.best],
    }


def shown_names(ranking: Ranking, measurer: Measurer) -> dict[str, str]:
    """Returns the names of all candidates in documents: without folders."""
    references = list(dict.fromkeys([*measurer.candidates, *(each.name for each in ranking.failures)]))
    return dict(zip(references, model_names(references), strict=True))


def candidate_lines(ranking: Ranking, names: Mapping[str, str]) -> str:
    """Returns what became of each candidate that could be traced, as JSON, a line for each."""
    limits = {name: OPTIONS[limit] for limit, taken in ranking.filtered.taken.items() for name in taken}
    places = {each.name: place for place, each in enumerate(ranking.best, start=1)}
    lines = []
    for name, sizes in ranking.sizes.items():
        number, value = ranking.measured.get(name, (None, None))
        row = {"model": names[name], "limit": limits.get(name), "round": number, "value": value}
        lines.append(json.dumps(row | {"place": places.get(name), **sizes.document()}, allow_nan=False) + "\n")
    return "".join(lines)


def _row(ranked: Ranked, name: str) -> dict[str, object]:
    return {
        "model": name,
        "value": ranked.value,
        "accuracy": dict(ranked.accuracy),
        "test": dict(ranked.test),
        **ranked.sizes.document(),
        "latency_ms": ranked.latency_ms,
        "pareto": ranked.pareto,
    }


def next_commands(
    ranking: Ranking,
    files: dict[str, Path],
    *,
    scheme: str,
    checkpoint: str | None,
    data: str | None,
    output: str | None,
) -> list[str]:
    """Returns what to do next with the best candidate."""
    best = ranking.best[0]
    shared = ["--scheme", scheme, *(["--data", data] if data else []), *(["--output", output] if output else [])]
    shared += current().words()
    if best.name in files:
        given = made = ["--weights", str(files[best.name])]
    else:
        given, made = (["--init", checkpoint], ["--checkpoint", checkpoint]) if checkpoint else ([], [])
    return [
        shlex.join(["ghnq", "finetune", best.name, *given, *shared]),
        shlex.join(["ghnq", "export", best.name, *made, *shared, "--out", "model.onnx"]),
    ]


def table(ranking: Ranking, settings: Settings, chosen: ChosenWeights, measurer: Measurer) -> Table:
    schemes, bench = list(measurer.schemes), measurer.bench
    images = min(settings.budget.images, len(bench.measured))
    shown = Table(
        title=f"the best {len(ranking.best)} of {ranking.candidates:,} candidates by '{settings.by.name}', "
        f"{bench.dataset.name}, {chosen.title}",
        caption=f"{settings.by.name}: {settings.by.summary}; {', '.join(schemes)}: predicted accuracy, % of "
        f"{images:,} held-out training images; bytes and peak memory of activations at {schemes[0]}; *: Pareto front "
        f"of accuracy at {schemes[0]} against macs, bytes and memory",
        header_style="bold",
    )
    shown.add_column("", justify="right")
    longest = max(len(each.name) for each in ranking.best)
    shown.add_column("candidate", overflow="fold", min_width=min(longest, MAX_NAME))
    headings = [settings.by.name, *schemes]
    headings += [f"test {scheme}" for scheme in schemes] if settings.on == "test" else []
    headings += ["params", "macs", "bytes", "memory"]
    headings += ["ms"] if settings.max_latency is not None else []
    for heading in (*headings, ""):
        shown.add_column(heading, justify="right")
    for number, each in enumerate(ranking.best, start=1):
        cells = [_number(each.value, 3), *(_number(value, 2) for value in each.accuracy.values())]
        cells += [_number(value, 2) for value in each.test.values()]
        memory = each.sizes.peak_memory
        cells += [f"{each.sizes.parameters:,}", f"{each.sizes.multiply_adds:,}", f"{each.sizes.bytes:,}"]
        cells += ["?" if memory is None else f"{memory:,}"]
        cells += [_number(each.latency_ms, 3)] if settings.max_latency is not None else []
        shown.add_row(str(number), escape(each.name), *cells, "*" if each.pareto else "")
    return shown


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def lines(ranking: Ranking, settings: Settings, bench: Bench, out: Path | None, page: Path | None) -> list[str]:
    """Returns what the order is worth, what was left out, and where the result is."""
    said = ["what this order is worth:", *(f"  {line}" for line in _worth(settings, bench))]
    if any(ranking.filtered.taken.values()):
        said.append(f"{ranking.filtered.explain(settings.limits)}; {len(ranking.filtered.kept):,} were left")
    if len(ranking.rungs) > 1:
        said.append("rounds: " + "; ".join(_round(rung) for rung in ranking.rungs))
    if ranking.failures:
        failed = len(ranking.failures)
        said.append(f"{failed:,} candidate{'s' if failed > 1 else ''} failed:")
        said += [escape(f"  {each.name}: {each.reason}") for each in ranking.failures[:MAX_FAILURES]]
        if len(ranking.failures) > MAX_FAILURES:
            said.append(f"  and {len(ranking.failures) - MAX_FAILURES:,} more (all are in the --json document)")
    if out is not None:
        said.append(f"result, specs and predicted weights of the best: [cyan]{escape(str(out))}[/]")
    if page is not None:
        said.append(f"page: [cyan]{escape(str(page))}[/]")
    return said


def _worth(settings: Settings, bench: Bench) -> list[str]:
    wanted = settings.budget
    return worth_lines(settings.by, Budget(min(wanted.images, len(bench.measured)), wanted.seconds))


def _round(rung: Rung) -> str:
    trained = f", {rung.budget.seconds:g} s of training" if rung.budget.seconds else ""
    return f"{rung.candidates:,} by '{rung.signal}' on {rung.budget.images:,} images{trained}"
