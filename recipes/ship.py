"""Puts a finished run and its evaluations into the package, with a model card made from the measured tables.

ghnq train recipes/digits.yaml --out runs/digits
ghnq evaluate runs/digits/best --splits test --out runs/digits/test
ghnq evaluate runs/digits/best --splits deep,wide,dense,bnfree --limit 25 --out runs/digits/beyond
python recipes/ship.py runs/digits test beyond --name digits

A run that began with the checkpoint of another (`init`) names that with `--base`, and before it what that one began
with, each with a `--base` of its own, the first run first. Networks with names are added from
`named.json` of benchmarks/named_accuracy.py, if the run's folder holds one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ghnq.evaluation import described, machines_of, markdown_table
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
the networks: mean ± standard error, best, worst, drop of the mean from `float32`. {calibration} calibration images,
{machines}, ghnq {ghnq}, torch {torch}.{note}

{tables}{named}## Limits

Trained on one data set and one space. Architectures unlike those of the space, or images unlike the data's, are
outside of what was measured.
"""


def main(
    run: Path,
    results: Annotated[list[str], typer.Argument(help="Folders of evaluations, inside the run's or elsewhere.")],
    name: Annotated[str, typer.Option()],
    bases: Annotated[
        list[Path] | None, typer.Option("--base", help="A run before this one, which began with its checkpoint.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, or last.")] = "best",
    data: Annotated[str | None, typer.Option(help="What is to be named as data; absent: what the run read.")] = None,
    note: Annotated[str, typer.Option(help="A sentence about the data.")] = "",
    hardware: Annotated[str, typer.Option()] = "2 CPU cores",
) -> None:
    """Copies weights, config and recipes, and writes the card."""
    source, target = run / checkpoint, SHIPPED / name
    ghn, hash_ = GHN.from_pretrained(source), checkpoint_hash(source)
    if ghn.task is None:
        raise SystemExit(f"{source} does not say what it was trained on")
    task = ghn.task.model_copy(update={"data": data or ghn.task.data})
    summaries = [json.loads((inside_or_elsewhere(run, folder) / "summary.json").read_text()) for folder in results]
    named = json.loads((run / NAMED).read_text()) if (run / NAMED).exists() else None
    check(hash_, [*summaries, *filter(None, [named])])
    recipes = {"recipe.yaml": published(run / "recipe.yaml", task.data, name)}
    before = dict(zip(names_of_bases(len(bases or [])), bases or [], strict=True))
    for (file, folder), follower in zip(before.items(), [*list(before.values())[1:], run], strict=True):
        if load_recipe(follower / "recipe.yaml").init is None:
            raise SystemExit(f"{follower} began with no other run, but {folder} is named before it")
        recipes[file] = published(folder / "recipe.yaml", task.data, Path(file).stem)
    first = next(iter(before.values()), run)
    if load_recipe(first / "recipe.yaml").init is not None:
        raise SystemExit(f"{first} began with another run: name that with --base")
    about = summaries[0]
    card = CARD.format(
        name=name, data=task.data, shape="x".join(map(str, task.image_shape)), hardware=hardware,
        training=training(run, before), parameters=sum(p.numel() for p in ghn.parameters()), hash=hash_,
        calibration=about["calibration_images"], machines=described(machines_of(summaries)),
        ghnq=about["versions"]["ghnq"], torch=about["versions"]["torch"], tables=tables(summaries),
        named="" if named is None else named_table(named), note=f"\n{note}" if note else "",
    )  # fmt: skip
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copyfile(source / "model.safetensors", target / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    config["task"]["data"] = task.data
    write_text(target / "config.json", json.dumps(config, indent=2) + "\n")
    for file, text in recipes.items():
        write_text(target / file, text)
    write_text(target / "README.md", card)
    print(f"{target}: {sum(f.stat().st_size for f in target.iterdir()) / 1e6:.1f} MB")


def inside_or_elsewhere(run: Path, folder: str) -> Path:
    """The folder of this name in the run's, if there is one."""
    inside = run / folder
    return inside if inside.is_dir() else Path(folder)


def check(hash_: str, summaries: list[dict[str, Any]]) -> None:
    """Leaves where results are of other weights, or of more than one version or calibration."""
    if any(summary["checkpoint_hash"] != hash_ for summary in summaries):
        raise SystemExit("the results are not of this checkpoint: evaluate it first")
    for key in ("calibration_images", "versions"):
        if len({json.dumps(summary[key], sort_keys=True) for summary in summaries if key in summary}) > 1:
            raise SystemExit(f"the results differ in '{key}'; a card shows only one")


def published(recipe: Path, data: str, name: str) -> str:
    """The recipe for others, to whom directories of this machine mean nothing."""
    read = load_recipe(recipe)
    init = read.init
    if init is not None and Path(init).is_dir():
        init = "/".join(["runs", *Path(init).parts[-2:]])
    return dump_recipe(read.model_copy(update={"name": name, "data": data, "init": init}))


def names_of_bases(count: int) -> list[str]:
    """Files of the recipes of earlier runs."""
    return ["base.yaml"] if count == 1 else [f"base-{number}.yaml" for number in range(1, count + 1)]


def training(run: Path, before: dict[str, Path]) -> str:
    """Lines of the card's first table: what was trained, for how long, and how."""
    recipe = load_recipe(run / "recipe.yaml")
    mix = recipe.quantization.mix
    how = "quantization was not part of the training"
    if any(weight and scheme != "float32" for scheme, weight in mix.items()):
        how = {"round": "networks were quantized", "noise": "networks had noise of one quantization step"}[
            recipe.quantization.strategy
        ] + " in training"
    lines = [
        f"| {'then' if number else 'began with'} | {duration(folder)}, by `{file}` beside this card |\n"
        for number, (file, folder) in enumerate(before.items())
    ]
    lines.append(f"| training | {duration(run)}, by `recipe.yaml` beside this card (seed {recipe.seed}); {how} |\n")
    return "".join(lines)


def duration(run: Path) -> str:
    """Steps, networks and minutes of a run."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps, seconds = log[-1]["step"], max(line.get("seconds", 0.0) for line in log)
    return f"{steps:,} steps, {trained_networks(run, log):,} networks, {seconds / 60:.1f} minutes"


def trained_networks(run: Path, log: list[dict[str, Any]]) -> int:
    """Networks that a run has trained, of which each step has as many as its recipe said at that time."""
    end, size, networks = log[-1]["step"], load_recipe(run / "recipe.yaml").meta_batch, 0
    for line in reversed(log):
        if "meta_batch" in line.get("override", {}):
            networks += (end - line["step"]) * size
            end, (size, _) = line["step"], line["override"]["meta_batch"]
    return int(networks + end * size)


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
