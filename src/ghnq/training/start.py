"""Where a run starts that does not start from random weights: the checkpoint that a recipe names under `init`."""

from __future__ import annotations

from ghnq.errors import RecipeError
from ghnq.hypernet.config import GHNConfig
from ghnq.training.recipe import Recipe


def with_hypernet(recipe: Recipe, config: GHNConfig) -> Recipe:
    """The recipe with the checkpoint's hypernetwork; raises RecipeError where the recipe asks for another one."""
    asked, found = recipe.hypernet.model_dump(), config.model_dump()
    contradicting = sorted(k for k in recipe.hypernet.model_fields_set if asked[k] != found[k])
    if contradicting:
        raise RecipeError(
            f"the checkpoint '{recipe.init}' (init) decides the hypernetwork, and the recipe contradicts it: "
            + ", ".join(f"hypernet.{k} is {asked[k]!r}, the checkpoint has {found[k]!r}" for k in contradicting)
            + ". Leave these keys out (`--set hypernet={}` leaves out all)"
        )
    return recipe.model_copy(update={"hypernet": config})
