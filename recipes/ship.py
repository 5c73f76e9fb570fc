"""Puts a finished run and its evaluations into the package, with a model card made from the measured tables.

ghnq train recipes/digits.yaml --out runs/digits
ghnq evaluate runs/digits/best --splits test --out runs/digits/test
ghnq evaluate runs/digits/best --splits deep,wide,dense,bnfree --limit 25 --out runs/digits/beyond
python recipes/ship.py runs/digits test beyond --name digits

A run that began with the checkpoint of another (`init`) names that with `--base`. Networks with names are added from
`named.json` of benchmarks/named_accuracy.py, if the run's folder holds one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ghnq.evaluation import markdown_table
from ghnq.files import write_text
from ghnq.hypernet import GHN
from ghnq.hypernet.checkpoint import checkpoint_hash
from ghnq.training.recipe import dump_recipe, load_recipe

SHIPPED = Path(__file__).parent.parent / "src" / "ghnq" / "checkpoints"
NAMED = "named.json"
CARD = """---
library_name: ghnq
license: apache-2.0
tags: [graph-hypernetwork, quantization, image-classification]
---
# {name}

A graph hypernetwork that predicts all parameters of an unseen convolutional network for `{data}` images of shape
{shape}, in one forward pass. Load it with `ghnq.GHN.from_pretrained("{name}")`.

| | |
|---|---|
{training}| hardware | {hardware} |
| parameters | {parameters:,} |
| SHA-256 of `model.safetensors` | `{hash}` |

## Measured

Accuracy in percent over architectures of the space `convnets` that the hypernetwork has not seen, with no training of
the networks: mean ± standard error, best, worst, drop of the mean from `float32`. {calibration} calibration images, CPU
with{vnni} VNNI, ghnq {ghnq}, torch {torch}.

{tables}{named}## Limits

Trained on one data set and one space. Architectures unlike those of the space, or images unlike the data's, are
outside of what was measured.
"""


def main(
    run: Path,
    results: Annotated[list[str], typer.Argument(help="Folders of evaluations inside the run's.")],
    name: Annotated[str, typer.Option()],
    base: Annotated[Path | None, typer.Option(help="The run whose checkpoint this one began with.")] = None,
    data: Annotated[
        str | None, typer.Option(help="What the recipes are to name as data; absent: what they do.")
    ] = None,
    hardware: Annotated[str, typer.Option()] = "2 CPU cores",
) -> None:
    """Copies weights, config and recipes, and writes the card."""
    summaries = [json.loads((run / folder / "summary.json").read_text()) for folder in results]
    target = SHIPPED / name
    target.mkdir(parents=True, exist_ok=True)
    for file in ("model.safetensors", "config.json"):
        shutil.copyfile(run / "best" / file, target / file)
    write_text(target / "recipe.yaml", published(run / "recipe.yaml", data))
    if base is not None:
        write_text(target / "base.yaml", published(base / "recipe.yaml", data))
    ghn = GHN.from_pretrained(target)
    hash_ = checkpoint_hash(target)
    named = json.loads((run / NAMED).read_text()) if (run / NAMED).exists() else None
    if ghn.task is None or any(s["checkpoint_hash"] != hash_ for s in [*summaries, *filter(None, [named])]):
        raise SystemExit("the results are not of this run's best checkpoint: evaluate it first")
    about = summaries[0]
    card = CARD.format(
        name=name, data=ghn.task.data, shape="x".join(map(str, ghn.task.image_shape)), hardware=hardware,
        training=training(run, base), parameters=sum(p.numel() for p in ghn.parameters()), hash=hash_,
        calibration=about["calibration_images"], vnni="" if about["machine"]["vnni"] else "out",
        ghnq=about["versions"]["ghnq"], torch=about["versions"]["torch"], tables=tables(summaries),
        named="" if named is None else named_table(named),
    )  # fmt: skip
    write_text(target / "README.md", card)
    print(f"{target}: {sum(f.stat().st_size for f in target.iterdir()) / 1e6:.1f} MB")


def published(recipe: Path, data: str | None) -> str:
    """The recipe for others: directories of this machine mean nothing to them."""
    read = load_recipe(recipe)
    changes = {"data": data or read.data, "init": None if read.init is None else "runs/base/best"}
    return dump_recipe(read.model_copy(update=changes))


def training(run: Path, base: Path | None) -> str:
    """Lines of the card's first table: what was trained, for how long, and how."""
    recipe = load_recipe(run / "recipe.yaml")
    mix = recipe.quantization.mix
    quantized = any(weight and word != "float32" for word, weight in mix.items())
    how = "networks were quantized in training" if quantized else "quantization was not part of the training"
    lines = ["" if base is None else f"| began with | {duration(base)}, by `base.yaml` beside this card |\n"]
    lines.append(f"| training | {duration(run)}, by `recipe.yaml` beside this card (seed {recipe.seed}); {how} |\n")
    return "".join(lines)


def duration(run: Path) -> str:
    """Steps, networks and minutes of a run."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps, seconds = log[-1]["step"], max(line.get("seconds", 0.0) for line in log)
    networks = steps * load_recipe(run / "recipe.yaml").meta_batch
    return f"{steps:,} steps, {networks:,} networks, {seconds / 60:.1f} minutes"


def tables(summaries: list[dict[str, Any]]) -> str:
    """A table for every protocol, steps and number of images; evaluations that share them share one."""
    found: dict[str, list[Any]] = {}
    for summary in summaries:
        steps = "".join(f" + `{step}`" for step in summary.get("steps", ()))
        heading = f"Protocol `{summary['protocol']}`{steps}, {summary['test_images']:,} test images:"
        found.setdefault(heading, []).extend(summary["rows"])
    return "".join(f"{heading}\n\n{markdown_table(rows)}\n" for heading, rows in found.items())


def named_table(named: dict[str, Any]) -> str:
    """Networks that are in no space."""
    steps = "".join(f" + `{step}`" for step in filter(None, named["steps"].split(",")))
    schemes = [key for key in named["rows"][0] if key not in ("network", "protocol")]
    lines = ["| network | protocol | " + " | ".join(schemes) + " |", "| --- " * (2 + len(schemes)) + "|"]
    for row in named["rows"]:
        protocol = f"`{row['protocol']}`" + (steps if row["protocol"] == "deploy" else "")
        lines.append(f"| {row['network']} | {protocol} | " + " | ".join(f"{row[s]:.1f}" for s in schemes) + " |")
    about = f"Networks of no space, in plain torch (`benchmarks/named.py`), {named['images']:,} test images; at w2a2"
    return f"{about} the\nfirst and the last layer have 8 bits:\n\n" + "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    typer.run(main)
