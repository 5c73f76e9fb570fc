"""Writes docs/reference/recipes.md from the schema of the recipe, so that every key is described in one place.

python docs/make_recipes.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ghnq.training.recipe import Recipe

PAGE = Path(__file__).parent / "reference" / "recipes.md"
HEAD = """# Recipes

<!-- Made by docs/make_recipes.py from src/ghnq/training/recipe/schema.py; edit there. -->

A recipe is a YAML file with everything that decides a training run. Unknown keys and values out of range are refused
before anything starts. `ghnq train RECIPE --set KEY=VALUE` changes single keys (dotted keys, YAML values):

<!-- shortened:
--out runs/mine => --out runs/mine --set steps=2 --set workers=1 --set validation.architectures=1
-->
```sh
ghnq train recipes/digits.yaml --out runs/mine --set seed=1 --set optimizer.lr=5e-4
```

The run's folder holds `recipe.yaml` with every key spelled out, the checkpoints `last/` and `best/`, `log.jsonl`,
`tensorboard/`, and the two last states, from which `--resume` goes on. A run that was killed at any moment
continues to the same weights as an uninterrupted one. If the last state is damaged (every byte is checked), a warning
is printed and the run continues from the state before; a full disk ends the run and leaves the states unchanged.

A resumed run must have the recipe it was started with. `--resume --override` goes on with a changed one, and writes
what changed into `log.jsonl`. The hypernetwork, the seed, `init`, the images held out, and the shape and classes of the
data cannot change; the minutes change with `--max-minutes` alone. Where a run takes place (`device`, `workers`,
`cuda_workers`, `cuda_graphs`, `--devices`) may change with every resume: the run is then the same up to rounding.

`--devices N` trains on N CUDA devices (`cuda_workers` processes on each), or with N processes on the CPU.
`torchrun --nproc-per-node N -m ghnq train ...` starts the processes itself, on several machines as well; all of them
read the run's folder, the first one writes it. On a GPU raise `reuse`, and set
`cuda_graphs: true` where networks are trained in float ([why](../results/training.md#on-a-gpu)).

## Keys
"""


def page() -> str:
    """Returns the whole page."""
    return HEAD + "".join(sections(Recipe, ""))


def sections(model: type[BaseModel], prefix: str) -> list[str]:
    """Returns a table of the keys of `model`, then the sections of its groups."""
    lines = ["\n| key | default | meaning |\n|---|---|---|\n"]
    groups = []
    for name, field in model.model_fields.items():
        inner = group(field.annotation)
        if inner is not None:
            lines.append(f"| `{prefix}{name}` | | a group of keys, see below |\n")
            groups += [f"\n### `{prefix}{name}`\n", *sections(inner, f"{prefix}{name}.")]
        else:
            lines.append(f"| `{prefix}{name}` | {default(field.default)} | {field.description} |\n")
    return lines + groups


def group(annotation: Any) -> type[BaseModel] | None:
    """Returns the model behind a key that is a group of keys."""
    kinds = [k for k in (annotation, *get_args(annotation)) if isinstance(k, type) and issubclass(k, BaseModel)]
    return kinds[0] if kinds else None


def default(value: object) -> str:
    """Returns a default as a recipe would write it."""
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
