"""The checkpoint that a run starts from, where the recipe names one under `init`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from ghnq.errors import GhnqWarning
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.node_embedding import channel_buckets
from ghnq.training.recipe import Recipe
from ghnq.training.run.wider_decoder import is_wider

CLASS_DECODERS = ("decoder.classes.", "vectors.classes.")
"""Names of the weights of a hypernetwork that belong to its classes begin with one of these."""

_CHANNEL_EMBEDDING = "embed.channel.weight"


def for_other_classes(tensors: Mapping[str, Tensor], classes: int, wanted: int) -> dict[str, Tensor]:
    """Returns the weights of a hypernetwork for another number of classes, without the decoders of the classes.

    The number of classes has an embedding of its own among those of channel counts: each count keeps its embedding, and
    the new number of classes gets that of the nearest count.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASS_DECODERS)}
    before, after = channel_buckets(classes), channel_buckets(wanted)
    distances = (torch.tensor(after)[:, None] - torch.tensor(before)).abs()
    rows = [*distances.argmin(1).tolist(), len(before)]  # the last one is for no shape
    return kept | {_CHANNEL_EMBEDDING: tensors[_CHANNEL_EMBEDDING][rows]}


def use_checkpoint_config(recipe: Recipe, config: GHNConfig) -> Recipe:
    """Returns the recipe with the checkpoint's `hypernet`, and warns if the recipe describes another one.

    `condition` may be added: its weights start at zero, so that predictions are the same at first. So may
    `channel_rank`: its factors start close to 1. A wider decoder (`decoder_hidden`) predicts the same at first, too.
    """
    if recipe.hypernet.condition and not config.condition:
        config = config.model_copy(update={"condition": True})
    if recipe.hypernet.channel_rank and not config.channel_rank:
        config = config.model_copy(update={"channel_rank": recipe.hypernet.channel_rank})
    if recipe.hypernet.decoder_hidden and is_wider(recipe.hypernet, config):
        config = config.model_copy(update={"decoder_hidden": recipe.hypernet.decoder_hidden})
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
