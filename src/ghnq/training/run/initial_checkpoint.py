"""The checkpoint that a run starts from, where the recipe names one under `init`."""

from __future__ import annotations

import warnings

from ghnq.errors import GhnqWarning
from ghnq.hypernet.config import GHNConfig
from ghnq.training.recipe import Recipe


def use_checkpoint_config(recipe: Recipe, config: GHNConfig) -> Recipe:
    """Returns the recipe with the checkpoint's `hypernet`, and warns if the recipe describes another one.

    `condition` may be added: its weights start at zero, so that predictions are the same at first. So may
    `channel_rank`: its factors start close to 1.
    """
    if recipe.hypernet.condition and not config.condition:
        config = config.model_copy(update={"condition": True})
    if recipe.hypernet.channel_rank and not config.channel_rank:
        config = config.model_copy(update={"channel_rank": recipe.hypernet.channel_rank})
    asked, found = recipe.hypernet.model_dump(), config.model_dump()
    others = sorted(k for k in recipe.hypernet.model_fields_set if asked[k] != found[k])
    if others:
        warnings.warn(
            f"the checkpoint '{recipe.init}' (init) decides the hypernetwork, not the recipe: "
            + ", ".join(f"hypernet.{k} is {found[k]!r}, not {asked[k]!r}" for k in others),
            GhnqWarning,
            stacklevel=3,
        )
    return recipe.model_copy(update={"hypernet": config})
