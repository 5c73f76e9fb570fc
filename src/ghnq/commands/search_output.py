"""What `ghnq search` says: the Pareto front as document and table, what its values are worth, and the next commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial
from rich.markup import escape
from rich.table import Table

from ghnq._version import __version__
from ghnq.commands.weight_options import ChosenWeights
from ghnq.data import ImageDataset
from ghnq.search.loop import EVALUATED, SPEC
from ghnq.search.pareto import front
from ghnq.search.study import OBJECTIVES, SIZES
from ghnq.spaces.convnets.spec_cost import cost
from ghnq.spaces.convnets.specs import Spec

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Found:
    """An architecture of the Pareto front.

    Attributes:
        trial: The number of its trial.
        spec: The architecture.
        values: Of the objectives, by name.
    """

    trial: int
    spec: Spec
    values: dict[str, float]


def front_of(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> list[Found]:
    """Returns the evaluated architectures that no other one dominates, the most accurate first."""
    found = {
        str(trial.number): Found(
            trial.number,
            Spec.from_json(trial.user_attrs[SPEC]),
            dict(zip(objectives, trial.values, strict=True)),
        )
        for trial in trials
        if trial.user_attrs.get(EVALUATED)
    }
    points = {
        name: [value if OBJECTIVES[objective] == "maximize" else -value for objective, value in each.values.items()]
        for name, each in found.items()
    }
    best = [found[name] for name in front(points)]
    first = objectives[0]
    sign = -1 if OBJECTIVES[first] == "maximize" else 1
    return sorted(best, key=lambda each: sign * each.values[first])


def document(
    found: Sequence[Found],
    files: Sequence[Path],
    trials: Sequence[FrozenTrial],
    chosen: ChosenWeights,
    objectives: Sequence[str],
    *,
    scheme: str,
    protocol: str,
    steps: str,
    signal: str,
    worth: Sequence[str],
    images: int,
    minutes: float | None,
    seed: int,
    sampler: str,
    space: str,
) -> dict[str, object]:
    """Returns the result for JSON."""
    return {
        **chosen.document,
        "ghnq_version": __version__,
        **chosen.dataset.record(),
        "space": space,
        "scheme": scheme,
        "protocol": protocol,
        "steps": [step for step in steps.split(",") if step],
        "objectives": list(objectives),
        "directions": {name: OBJECTIVES[name] for name in objectives},
        "signal": signal,
        "worth": list(worth),
        "images": images,
        "minutes": minutes,
        "sampler": sampler,
        "seed": seed,
        "trials": sum(bool(trial.user_attrs.get(EVALUATED)) for trial in trials),
        "front": [
            {
                "trial": each.trial,
                "file": file.name,
                "structure_hash": each.spec.structure_hash,
                **{name: _whole(name, value) for name, value in each.values.items()},
            }
            for each, file in zip(found, files, strict=True)
        ],
    }


def trial_lines(
    trials: Sequence[FrozenTrial],
    objectives: Sequence[str],
    found: Sequence[Found],
    files: Sequence[Path],
    dataset: ImageDataset,
) -> str:
    """Returns every architecture that was measured, in the order of the trials, as JSON, a line for each."""
    names = {each.trial: file.name for each, file in zip(found, files, strict=True)}
    lines = []
    for trial in trials:
        if trial.user_attrs.get(EVALUATED):
            spec = Spec.from_json(trial.user_attrs[SPEC])
            size = cost(spec, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
            values = {name: _whole(name, value) for name, value in zip(objectives, trial.values, strict=True)}
            row = {"trial": trial.number, "values": values, "structure_hash": spec.structure_hash}
            row |= {"parameters": size.parameters, "depth": size.depth, "family": spec.family}
            lines.append(json.dumps(row | {"model": names.get(trial.number, "")}, allow_nan=False) + "\n")
    return "".join(lines)


def _whole(name: str, value: float) -> float | int:
    return int(value) if name in SIZES else value


def table(
    found: Sequence[Found],
    objectives: Sequence[str],
    scheme: str,
    signal: str,
    images: int,
    chosen: ChosenWeights,
    trials: int,
) -> Table:
    """Returns the Pareto front as a table."""
    what = f"the signal '{signal}' on {images:,} held-out training images of {chosen.dataset.name}, {chosen.title}"
    accuracy = f"accuracy: {what}; " if ACCURACY in objectives else ""
    shown = Table(
        title=f"Pareto front of {trials:,} architectures at {scheme}",
        caption=f"{accuracy}bytes of parameters and peak memory of activations at {scheme}",
        header_style="bold",
    )
    shown.add_column("", justify="right")
    for heading in (*objectives, "params", "depth"):
        shown.add_column(heading, justify="right")
    shown.add_column("family")
    dataset = chosen.dataset
    for number, each in enumerate(found, start=1):
        size = cost(each.spec, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
        cells = [f"{v:.2f}" if name == ACCURACY else f"{int(v):,}" for name, v in each.values.items()]
        shown.add_row(str(number), *cells, f"{size.parameters:,}", str(size.depth), each.spec.family)
    return shown


def lines(worth: Sequence[str], out: Path, page: Path, storage: str | None) -> list[str]:
    """Returns what the values are worth, and where the results are."""
    where = escape(storage) if storage else f"{escape(str(out))}/study.journal"
    return [
        *(["what the order of these values is worth:"] if worth else []),
        *(f"  {line}" for line in worth),
        f"architectures of the front: [cyan]{escape(str(out))}[/]; study for optuna-dashboard: [cyan]{where}[/]",
        f"page: [cyan]{escape(str(page))}[/]",
    ]


def next_commands(
    files: Sequence[Path], folder: Path, scheme: str, checkpoint: str | None, data: str | None
) -> list[str]:
    """Returns what to do next: rank the front by the best signal, fine-tune its most accurate architecture."""
    given = [*(["--checkpoint", checkpoint] if checkpoint else []), *(["--data", data] if data else [])]
    init = [*(["--init", checkpoint] if checkpoint else []), *(["--data", data] if data else [])]
    return [
        shlex.join(["ghnq", "rank", str(folder), "--scheme", scheme, *given]),
        shlex.join(["ghnq", "finetune", str(files[0]), "--scheme", scheme, *init]),
    ]
