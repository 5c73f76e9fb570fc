"""What makes a hypernetwork better per hour: one recipe, one change at a time, the same minutes, measured on `val`.

    python benchmarks/study.py --data ../shared/data [--minutes 12] [--rows base,lr_4e-3] [--schemes float32] [--jobs 2]

Each row is a `ghnq train` of one process on one core, `--jobs` of them side by side, and, when all are trained, a
`ghnq evaluate`. A row that is there already is not repeated, and one that was interrupted goes on. The best recipe of
the shipped checkpoints came from this table (docs/results/training.md); `test` is never looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10.yaml"
SCHEMES = "float32,w8a8,w4a4"
ROWS: dict[str, dict[str, object]] = {
    "base": {},
    "seed_1": {"seed": 1},  # what chance alone does
    "no_identity": {"hypernet.identity": False},
    "no_place": {"hypernet.place": False},
    "decoder_norm": {"hypernet.decoder_norm": True},
    "hidden_64": {"hypernet.hidden": 64},
    "hidden_24": {"hypernet.hidden": 24},
    "decoder_128": {"hypernet.decoder_hidden": [128, 128]},
    "decoder_384": {"hypernet.decoder_hidden": [128, 384]},
    "no_layer_norm": {"hypernet.layer_norm": False},  # with no_identity: magnitude-invariant parametrization
    "mlp": {"hypernet.encoder": "mlp"},
    "graphormer": {"hypernet.encoder": "graphormer"},
    "lowrank": {"hypernet.decoder": "lowrank"},
    "corner": {"hypernet.kernel": "corner"},
    "no_virtual_edges": {"hypernet.virtual_edges": False},
    "meta_4": {"meta_batch": 4},
    "meta_16": {"meta_batch": 16},
    "images_16": {"batch_size": 16},
    "images_64": {"batch_size": 64},
    "lr_5e-4": {"optimizer.lr": 5e-4},
    "lr_1e-3": {"optimizer.lr": 1e-3},
    "lr_4e-3": {"optimizer.lr": 4e-3},
    "decay_0.05": {"optimizer.weight_decay": 0.05},
    "constant": {"schedule.name": "constant"},
    "no_ema": {"ema": 0.0},
    "no_augment": {"augment": False},
    "smoothing_0.1": {"label_smoothing": 0.1},
    "share_images": {"share_images": True},
    "soft_labels": {"soft_labels": "runs/teacher.safetensors"},  # of benchmarks/teacher.py
    "small_images_first": {"curriculum.steps": 200, "curriculum.image_size": 16},
    "small_networks_first": {"curriculum.steps": 200, "curriculum.multiply_adds": 3e6},
    "fresh": {"reuse": 1},
    "small_networks": {"curriculum.steps": 10**9, "curriculum.multiply_adds": 4e6},
    "stages_only": {"curriculum.steps": 10**9, "curriculum.family": "stages"},
    "stem_stride_2": {"curriculum.steps": 10**9, "curriculum.stem_stride": 2},
}


@dataclass(frozen=True)
class Study:
    """What all rows of a study share; `out` holds a folder for each."""

    recipe: Path
    data: str
    minutes: float
    schemes: str
    architectures: int
    images: int
    out: Path
    steps: str = ""

    def run(self, rows: dict[str, dict[str, object]], jobs: int) -> list[dict[str, Any]]:
        """Trains rows side by side, then measures one after the other: measuring takes all cores."""
        self.out.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(self._train, rows, rows.values()))
        return [self._row(name, changes) for name, changes in rows.items()]

    def _settings(self, changes: dict[str, object]) -> dict[str, object]:
        """Everything that the figures of a row depend on."""
        text = {key: str(value) for key, value in asdict(self).items() if key != "out"}
        return {**text, "changes": json.loads(json.dumps(changes))}

    def _train(self, name: str, changes: dict[str, object]) -> None:
        folder = self.out / name
        kept = self.out / f"{name}.json"
        if not kept.exists():
            kept.write_text(json.dumps(self._settings(changes)))
        elif json.loads(kept.read_text()) != self._settings(changes):
            raise SystemExit(f"{folder} is of other settings ({kept}); take another --out")
        if (folder / "last").exists() and (self.out / f"{name}.trained").exists():
            return
        settings = [f"--set={key}={json.dumps(value)}" for key, value in ({"workers": 1} | changes).items()]
        resume = ["--resume"] if (folder / "state.safetensors").exists() else []
        run = ["train", str(self.recipe), "--data", self.data, "--out", str(folder), *settings, *resume]
        self._ghnq([*run, "--max-minutes", str(self.minutes)], name)
        (self.out / f"{name}.trained").touch()

    def _row(self, name: str, changes: dict[str, object]) -> dict[str, Any]:
        folder = self.out / name
        members = ["--splits", "val", "--limit", str(self.architectures), "--images", str(self.images)]
        steps = ["--steps", self.steps] if self.steps else []
        run = ["evaluate", str(folder / "last"), "--data", self.data, "--out", str(folder / "val"), *members, *steps]
        self._ghnq([*run, "--schemes", self.schemes], name)
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        last = [line for line in lines if "loss" in line][-1]
        row = {"row": name, "changes": changes, "steps": last["step"], "minutes": round(last["seconds"] / 60, 1)}
        return row | {"summary": json.loads((folder / "val" / "summary.json").read_text())}

    def _ghnq(self, arguments: list[str], name: str) -> None:
        with (self.out / f"{name}.txt").open("a") as log:
            subprocess.run([sys.executable, "-m", "ghnq", *arguments], check=True, stdout=log, stderr=log)


def main(
    data: Annotated[str, typer.Option(help="Directory or hub id of CIFAR-10.")],
    minutes: Annotated[float, typer.Option(help="Of training, each row.")] = 12.0,
    rows: Annotated[str | None, typer.Option(help="Comma-separated; absent: all.")] = None,
    jobs: Annotated[int, typer.Option(help="Rows side by side, one core each.")] = 2,
    architectures: Annotated[int, typer.Option(help="Of split val.")] = 50,
    images: Annotated[int, typer.Option(help="Test images.")] = 1000,
    schemes: Annotated[str, typer.Option(help="Comma-separated.")] = SCHEMES,
    out: Annotated[Path, typer.Option()] = Path("runs/study"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Prints a table."""
    chosen = rows.split(",") if rows else list(ROWS)
    unknown = sorted(set(chosen) - set(ROWS))
    if unknown:
        raise typer.BadParameter(f"no rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    study = Study(RECIPE, data, minutes, schemes, architectures, images, out)
    done = study.run({name: ROWS[name] for name in chosen}, jobs)
    if as_json:
        print(json.dumps(done))
        return
    table = Table(title=f"{minutes:g} minutes each, {architectures} val architectures, {images} images")
    for column in ("row", "steps", *schemes.split(",")):
        table.add_column(column, justify="left" if column == "row" else "right")
    for row in done:
        table.add_row(row["row"], str(row["steps"]), *_accuracies(row["summary"], schemes))
    Console().print(table)


def _accuracies(summary: dict[str, Any], schemes: str) -> list[str]:
    cells = {cell["scheme"]: cell for cell in summary["rows"]}
    return [f"{cells[scheme]['mean']:.1f} ± {cells[scheme]['sem']:.1f}" for scheme in schemes.split(",")]


if __name__ == "__main__":
    typer.run(main)
