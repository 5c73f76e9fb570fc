"""Puts a finished run and its evaluations into the package, with a model card made from the measured tables.

ghnq train recipes/digits.yaml --out runs/digits
ghnq evaluate runs/digits/best --splits test --out runs/digits/test
ghnq evaluate runs/digits/best --splits deep,wide,dense,bnfree --limit 25 --out runs/digits/beyond
python recipes/ship.py runs/digits test beyond --name digits
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ghnq.evaluation import markdown_table
from ghnq.files import write_text
from ghnq.hypernet import GHN
from ghnq.hypernet.checkpoint import checkpoint_hash

SHIPPED = Path(__file__).parent.parent / "src" / "ghnq" / "checkpoints"
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
| trained by | `recipe.yaml` beside this card (seed {seed}), quantization was not part of the training |
| training | {steps} steps, {networks} networks, {minutes:.1f} minutes on {hardware} |
| parameters | {parameters:,} |
| SHA-256 of `model.safetensors` | `{hash}` |

## Measured

Accuracy in percent over architectures of the space `convnets` that the hypernetwork has not seen, with no training of
the networks: mean ± standard error, best, drop of the mean from `float32`. Protocol `{protocol}`, {images} test images,
{calibration} calibration images, CPU with{vnni} VNNI, ghnq {ghnq}, torch {torch}.

{table}
## Limits

Trained on one data set and one space. Architectures unlike those of the space, or images unlike the data's, are
outside of what was measured.
"""


def main(
    run: Path,
    results: Annotated[list[str], typer.Argument(help="Folders of evaluations inside the run's.")],
    name: Annotated[str, typer.Option()],
    hardware: Annotated[str, typer.Option()] = "2 CPU cores",
) -> None:
    """Copies weights, config and recipe, and writes the card."""
    summaries = [json.loads((run / folder / "summary.json").read_text()) for folder in results]
    summary = summaries[0]
    recipe = (run / "recipe.yaml").read_text()
    target = SHIPPED / name
    target.mkdir(parents=True, exist_ok=True)
    for file in ("model.safetensors", "config.json"):
        shutil.copyfile(run / "best" / file, target / file)
    write_text(target / "recipe.yaml", recipe)
    ghn = GHN.from_pretrained(target)
    if ghn.task is None or any(s["checkpoint_hash"] != checkpoint_hash(target) for s in summaries):
        raise SystemExit("the results are not of this run's best checkpoint: evaluate it first")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps, seconds = log[-1]["step"], max(line.get("seconds", 0.0) for line in log)
    settings = dict(line.split(": ", 1) for line in recipe.splitlines() if ": " in line and not line.startswith(" "))
    card = CARD.format(
        name=name, data=ghn.task.data, shape="x".join(map(str, ghn.task.image_shape)), seed=settings["seed"],
        steps=steps, networks=steps * int(settings["meta_batch"]), minutes=seconds / 60, hardware=hardware,
        parameters=sum(p.numel() for p in ghn.parameters()), hash=summary["checkpoint_hash"],
        protocol=summary["protocol"], images=summary["test_images"], calibration=summary["calibration_images"],
        vnni="" if summary["machine"]["vnni"] else "out", ghnq=summary["versions"]["ghnq"],
        torch=summary["versions"]["torch"], table=markdown_table([row for s in summaries for row in s["rows"]]),
    )  # fmt: skip
    write_text(target / "README.md", card)
    print(f"{target}: {sum(f.stat().st_size for f in target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
