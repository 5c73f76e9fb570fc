"""How well signals order networks: rank correlations with what training makes of them.

    python benchmarks/ranking_study.py [--evidence]

Called in the root of the checkout. Reads the rows of `benchmarks/ranking_truth.py` and `benchmarks/ranking_signals.py`
in results/ranking, and writes results/ranking/study.json and the tables of docs/results/ranking.md. With --evidence,
what `ghnq rank` says and ranks by (src/ghnq/search/evidence.json) is made from them, too.

The target is the accuracy of a network trained through quantization at w4a4. Kendall's tau (b) is over all networks,
over the named ones, and within budget classes: over the pairs of networks of one class, where size alone cannot
decide. Intervals: 95 %, bootstrap of the networks within their classes. A linear fit is least squares on the signals,
each divided by its standard deviation, with a small ridge; two networks are compared by the fit to all others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from ghnq.files import write_text
from ranking_networks import CLASSES, NAMED_CLASS
from ranking_statistics import Array, Comparison, fit, signs_of, signs_of_fits
from ranking_tables import fill

FOLDER = Path("results/ranking")
EVIDENCE = Path("src/ghnq/search/evidence.json")
PAGE = Path("docs/results/ranking.md")
NEARLY_ALL = 0.9
"""The part of the networks that a signal must have, to be compared with others in what `ghnq rank` says."""
IMAGES = 2000
ACCURACY, LOSS = "accuracy, 2,000 images", "loss, 2,000 images"
"""Of all images that are held out, as `ghnq rank` measures the best."""
OURS = {ACCURACY: "accuracy", LOSS: "loss", "finetune-30": "finetune", "kaiming-30": "train"} | {
    name: name for name in ("macs", "params", "synflow", "naswot")
}
"""Signals of the study that `ghnq rank --by` has, and their names there."""
FITS: Mapping[str, tuple[str, ...]] = {
    "fit of sizes": ("macs", "params"),
    "fit of sizes and predicted loss": ("macs", "params", LOSS),
    "fit of sizes and predicted accuracy": ("macs", "params", ACCURACY),
    "fit of multiply-adds and predicted accuracy": ("macs", ACCURACY),
    "fit of sizes and synflow": ("macs", "params", "synflow"),
    "fit of sizes and fine-tuning 10 s": ("macs", "params", "finetune-10"),
    "fit of sizes and fine-tuning 30 s": ("macs", "params", "finetune-30"),
    "fit of sizes and Kaiming 10 s": ("macs", "params", "kaiming-10"),
    "fit of multiply-adds and both trainings, 10 s": ("macs", "finetune-10", "kaiming-10"),
    "fit of multiply-adds and both trainings, 30 s": ("macs", "finetune-30", "kaiming-30"),
    "fit of multiply-adds and both trainings, 60 s": ("macs", "finetune-60", "kaiming-60"),
    "fit of multiply-adds and Kaiming 30 s": ("macs", "kaiming-30"),
    "fit of multiply-adds and Kaiming 60 s": ("macs", "kaiming-60"),
}
FITS_OF_RANK = {
    "fitted": "fit of multiply-adds and predicted accuracy",
    "fitted-training": "fit of multiply-adds and Kaiming 30 s",
}
"""Fits that `ghnq rank --by` has; `fitted-training` is its default."""
Rows = list[dict[str, Any]]


def read_rows(file: Path) -> Rows:
    """Returns the rows of a ledger, without its first line and lines about machines."""
    lines = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    return [line for line in lines if "network" in line]


def trained(rows: Rows) -> Iterator[str]:
    """Yields the networks that are trained to the end, in that order."""
    yield from (row["network"] for row in rows if row["stage"] == "w4a4")


class Study:
    """Networks as positions of arrays: `target` (accuracy at w4a4, percent), `groups`, `signals` by name (NaN where a
    network has none)."""

    def __init__(self, truth: Rows, signals: Rows, checkpoint: str | None = None) -> None:
        self.words = list(trained(truth))
        stages = {(row["network"], row["stage"]): row for row in truth}
        self.groups = np.array([stages[word, "w4a4"]["class"] for word in self.words])
        self.target = self._stage(stages, "w4a4")
        self.in_float, self.half = self._stage(stages, "float"), self._stage(stages, "half")
        self.drop = np.array([_drop(stages[word, "float"]["quantized"]) for word in self.words])
        self.checkpoint = checkpoint or _last_checkpoint(signals)
        usable = [row for row in signals if row["checkpoint_sha256"] in ("", self.checkpoint)]
        self.signals, self.seconds = _columns(self.words, usable)
        means, seconds = _means(self.words, signals)
        self.signals, self.seconds = self.signals | means, self.seconds | seconds

    def columns(self, terms: Sequence[str]) -> Array:
        """Returns signals side by side, [N, S]."""
        return np.stack([self.signals[term] for term in terms], 1)

    def _stage(self, stages: Mapping[tuple[str, str], Mapping[str, Any]], stage: str) -> Array:
        return np.array([stages[word, stage]["accuracy"] for word in self.words], float)


def _drop(quantized: Mapping[str, float]) -> float:
    return quantized["float32"] - quantized["w4a4"]


def _last_checkpoint(signals: Rows) -> str:
    return str(next(row["checkpoint_sha256"] for row in reversed(signals) if row["checkpoint_sha256"]))


def _columns(words: Sequence[str], rows: Rows) -> tuple[dict[str, Array], dict[str, float]]:
    """Returns the signals by name, and the mean seconds of each."""
    values: dict[str, dict[str, float]] = {}
    seconds: dict[str, list[float]] = {}
    for row in rows:
        for name, value in _named(row["measure"], row["values"]):
            values.setdefault(name, {})[row["network"]] = np.nan if value is None else value
            seconds.setdefault(name, []).append(row["cpu_seconds"])
    columns = {name: np.array([each.get(word, np.nan) for word in words], float) for name, each in values.items()}
    means = {name: float(np.mean(each)) for name, each in seconds.items()}
    if "finetune-30" in columns:
        columns["slope, 10 to 30 s"] = columns["finetune-30"] - columns["finetune-10"]
        means["slope, 10 to 30 s"] = means["finetune-10"] + means["finetune-30"]
    return columns, means


def _means(words: Sequence[str], rows: Rows) -> tuple[dict[str, Array], dict[str, float]]:
    """Returns, as `_columns`, predicted accuracy and loss as means over all checkpoints; none for one checkpoint."""
    predicted = [row for row in rows if row["measure"] == "predicted"]
    columns = [
        _columns(words, [row for row in predicted if row["checkpoint_sha256"] == each])
        for each in sorted({row["checkpoint_sha256"] for row in predicted})
    ]
    if len(columns) < 2:
        return {}, {}
    names = {f"{name}, mean of {len(columns)} checkpoints": name for name in (ACCURACY, LOSS)}
    return (
        {long: np.mean([values[name] for values, _ in columns], axis=0) for long, name in names.items()},
        {long: sum(seconds[name] for _, seconds in columns) for long, name in names.items()},
    )


def _named(measure: str, values: Mapping[str, float | None]) -> Iterator[tuple[str, float | None]]:
    """Yields the signals of a row under the names that tables have."""
    kind, _, seconds = measure.partition("-")
    if kind in ("sizes", "random"):
        yield from values.items()
    elif kind == "predicted":
        yield "accuracy, 500 images", values["accuracy_500"]
        yield "loss, 500 images", values["loss_500"]
        yield ACCURACY, values["accuracy"]
        yield LOSS, values["loss"]
        yield "accuracy in float", values["float_accuracy"]
        drop = (
            None
            if None in (values["accuracy"], values["float_accuracy"])
            else (values["accuracy"] - values["float_accuracy"])
        )  # type: ignore[operator]
        yield "robustness: minus the predicted drop", drop
    else:
        yield f"{kind}-{seconds}", values["accuracy"]
        yield f"{kind}-{seconds}, 500 images", values["accuracy_500"]
        yield f"{kind}-{seconds} loss", values["loss"]


def row_of(name: str, signs: Array, study: Study, seconds: float) -> dict[str, Any]:
    """What a signal's order is worth."""
    over_all, within, named = (
        Comparison(signs, study.target, study.groups, pairs) for pairs in ("all", "within", NAMED_CLASS)
    )
    return {
        "signal": name,
        "networks": len(over_all),
        "tau": round(over_all.tau(), 3),
        "interval": [round(each, 3) for each in over_all.interval()],
        "within_budget": round(within.tau(), 3),
        "within_interval": [round(each, 3) for each in within.interval()],
        "named": round(named.tau(), 3) if len(named) > 2 else None,
        "float": round(Comparison(signs, study.in_float, study.groups, "within").tau(), 3),
        "lost_by_top_5": round(within.lost(), 2),
        "mean_of_first_10": round(within.mean_of_first(10), 2),
        "cpu_seconds": round(seconds, 2),
    }


def rows_of(study: Study) -> Iterator[dict[str, Any]]:
    for name, values in study.signals.items():
        yield row_of(name, signs_of(values), study, study.seconds[name])
    for name, terms in FITS.items():
        if all(term in study.signals for term in terms):
            signs = signs_of_fits(study.columns(terms), study.target)
            yield row_of(name, signs, study, sum(study.seconds[term] for term in terms))


def stability(study: Study) -> dict[str, Any]:
    """How far the truth agrees with itself: half the epochs, float and w4a4, and the drop."""

    def of(first: Array, second: Array) -> dict[str, float]:
        return {
            pairs: round(Comparison(signs_of(first), second, study.groups, pairs).tau(), 3)
            for pairs in ("all", "within")
        }

    drop = study.signals.get("robustness: minus the predicted drop")
    return {
        "half and all epochs, float": of(study.half, study.in_float),
        "float and w4a4": of(study.in_float, study.target),
        **({} if drop is None else {"predicted and trained drop": of(drop, -study.drop)}),
    }


def classes(study: Study) -> list[dict[str, Any]]:
    found = []
    for group in (*CLASSES, NAMED_CLASS):
        here = study.groups == group
        if here.any():
            found.append({
                "class": group, "networks": int(here.sum()),
                **{name: [round(float(f(each[here])), 2) for f in (np.mean, np.std, np.min, np.max)]
                   for name, each in (("float", study.in_float), ("w4a4", study.target), ("drop", study.drop))},
            })  # fmt: skip
    return found


def document_of(study: Study) -> dict[str, Any]:
    """Everything that is derived from the rows."""
    return {
        "networks": len(study.words), "checkpoint_sha256": study.checkpoint, "classes": classes(study),
        "stability": stability(study), "signals": list(rows_of(study)),
    }  # fmt: skip


def evidence_of(document: dict[str, Any], study: Study) -> dict[str, Any]:
    """The file that `ghnq rank` reads: its signals, and the combinations of them that it can rank by."""
    rows = {row["signal"]: row for row in document["signals"]}
    counts = Counter(study.groups.tolist())
    return {
        "target": f"accuracy at w4a4 of {len(study.words)} networks ({counts['2M']} and {counts['3M']} members of "
        f"convnets/val in two budget classes, {counts[NAMED_CLASS]} of named families) trained from random weights on "
        "10,000 images of CIFAR-10 for 15 epochs, and 3 through quantization; 10,000 test images; one seed; "
        f"predictions of the checkpoint {study.checkpoint[:12]}",
        "networks": len(study.words),
        "images": IMAGES,
        "training_seconds": 30.0,
        "caution": "A budget is multiply-adds within a quarter, where size hardly decides. Networks of 1 to 9 million "
        "multiply-adds on one data set, with few images and epochs: larger ones, other images or longer training may "
        "order otherwise.",
        "signals": {
            ours: worth(rows[name])
            for name, ours in OURS.items()
            if name in rows and rows[name]["networks"] >= NEARLY_ALL * len(study.words)
        },
        "fits": {ours: fitted(study, name) | worth(rows[name]) for ours, name in FITS_OF_RANK.items()},
    }  # fmt: skip


def fitted(study: Study, name: str) -> dict[str, Any]:
    """The coefficients of a fit, by the names that `ghnq rank` has."""
    terms = FITS[name]
    columns = study.columns(terms)
    known = ~np.isnan(columns).any(1)
    weights = fit(columns[known], study.target[known])
    return {
        "terms": {OURS[term]: float(f"{w:.4g}") for term, w in zip(terms, weights, strict=True)},
        "note": f"least squares on {known.sum()} networks; tau is of networks that it was not fitted to",
    }


def worth(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("tau", "interval", "within_budget", "within_interval", "lost_by_top_5")
    return {name: row[name] for name in names} | {"seconds": row["cpu_seconds"]}


def main(
    evidence: Annotated[bool, typer.Option(help="Make what `ghnq rank` says and ranks by anew, too.")] = False,
    checkpoint: Annotated[str | None, typer.Option(help="Hash of the hypernetwork; the last one if absent.")] = None,
    fewest: Annotated[int, typer.Option(help="Networks, below which an order is not worth a figure.")] = 10,
) -> None:
    study = Study(read_rows(FOLDER / "truth" / "rows.jsonl"), read_rows(FOLDER / "signals" / "rows.jsonl"), checkpoint)
    if len(study.words) < fewest:
        raise typer.BadParameter(f"{len(study.words)} networks are trained; a study needs at least {fewest}")
    document = document_of(study)
    write_text(FOLDER / "study.json", json.dumps(document, indent=1) + "\n")
    if PAGE.exists():
        write_text(PAGE, fill(PAGE.read_text(), document))
    Console(width=160).print(document, highlight=False)
    if evidence:
        write_text(EVIDENCE, json.dumps(evidence_of(document, study), indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
