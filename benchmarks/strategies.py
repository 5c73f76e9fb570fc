"""Float training, training through quantization, and noise: from one float hypernetwork, with the same minutes.

    python benchmarks/strategies.py CHECKPOINT --data ../shared/data [--minutes 20] [--rows float,round] [--jobs 2]

Each row goes on from CHECKPOINT by `recipes/cifar10-qat.yaml` with a change, on one core, and is measured on `val`
under every scheme; beside each mean stands the difference to the row `float`, the same minutes of float training,
network by network, with its standard error over architectures: one seed, the same images. A row that is there already
is not repeated.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import pyarrow.parquet
import typer
from rich.console import Console
from rich.table import Table

from study import Study

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10-qat.yaml"
W2A2 = "w2a2+stem.conv=w8a8+classifier=w8a8"
SCHEMES = ("float32", "w8a8", "w4a8", "w4a4", W2A2)
STEPS = "search_weights,search_activations"
ROWS: dict[str, dict[str, object]] = {
    "float": {"quantization.mix": {"float32": 1.0}, "quantization.steps": [], "hypernet.condition": False},
    "round": {},
    "unconditioned": {"hypernet.condition": False},
    "noise": {"quantization.strategy": "noise"},
    "min_max": {"quantization.steps": []},
    "only_w4a4": {"quantization.mix": {"w4a4": 1.0}},
}


def accuracies(folder: Path) -> dict[str, dict[int, float]]:
    """Accuracy in percent by scheme and architecture."""
    found: dict[str, dict[int, float]] = {}
    for row in pyarrow.parquet.read_table(folder / "val" / "results.parquet").to_pylist():
        found.setdefault(row["scheme"], {})[row["index"]] = 100 * row["correct"] / row["images"]
    return found


def cell(values: dict[int, float], control: dict[int, float]) -> str:
    """Mean, and the paired difference to the control."""
    text = f"{mean(values.values()):.1f}"
    if not control:
        return text
    differences = [values[index] - control[index] for index in values]
    return f"{text} ({mean(differences):+.1f} ± {stdev(differences) / len(differences) ** 0.5:.1f})"


def main(
    checkpoint: Annotated[str, typer.Argument(help="A float hypernetwork.")],
    data: Annotated[str, typer.Option(help="Directory or hub id of CIFAR-10.")],
    minutes: Annotated[float, typer.Option(help="Of training, each row.")] = 20.0,
    rows: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(ROWS),
    jobs: Annotated[int, typer.Option(help="Rows side by side, one core each.")] = 2,
    architectures: Annotated[int, typer.Option(help="Of split val.")] = 40,
    images: Annotated[int, typer.Option(help="Test images.")] = 500,
    out: Annotated[Path, typer.Option()] = Path("runs/strategies"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Prints a table."""
    chosen = rows.split(",")
    if architectures < 2:
        raise typer.BadParameter("differences need at least 2 architectures")
    if unknown := sorted(set(chosen) - set(ROWS)):
        raise typer.BadParameter(f"no rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    study = Study(RECIPE, data, minutes, ",".join(SCHEMES), architectures, images, out, STEPS)
    done = study.run({name: {"init": checkpoint} | ROWS[name] for name in chosen}, jobs)
    if as_json:
        print(json.dumps(done))
        return
    found = {
        name: accuracies(out / name) for name in dict.fromkeys([*chosen, "float"]) if (out / name / "val").exists()
    }
    table = Table(title=f"{minutes:g} minutes each, {architectures} val architectures, {images} images, with {STEPS}")
    for column in ("row", "steps", *("w2a2*" if scheme == W2A2 else scheme for scheme in SCHEMES)):
        table.add_column(column, justify="left" if column == "row" else "right")
    for row in done:
        name = row["row"]
        control = found["float"] if "float" in found and name != "float" else {}
        cells = [cell(found[name][scheme], control.get(scheme)) for scheme in SCHEMES]
        table.add_row(name, str(row["steps"]), *cells)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
