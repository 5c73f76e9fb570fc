"""Where a run starts that does not start from random weights: the checkpoint that a recipe names under `init`."""

from __future__ import annotations

import warnings

from ghnq.errors import GhnqWarning
from ghnq.hypernet.config import GHNConfig
from ghnq.training.run.recipe import Recipe


def with_hypernet(recipe: Recipe, config: GHNConfig) -> Recipe:
    """The recipe with the checkpoint's hypernetwork; warns where the recipe describes another one.

    `condition` may be added, without effect at first: a float hypernetwork learns to be told the precision. So may
    `channel_rank`, with little effect at first: the channels of wide layers are told apart from then on.
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
