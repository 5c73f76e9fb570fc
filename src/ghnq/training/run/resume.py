"""The recipe of a resumed run: the one it was started with, or, with --override, a changed one."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from ghnq.data import ImageDataset
from ghnq.errors import CheckpointError, TrainingError
from ghnq.recorded_names import checkpoint_name, data_name, file_name
from ghnq.training.recipe import Recipe
from ghnq.training.run.state import State
from ghnq.training.run.trainer import task_of
from ghnq.validation_errors import explain

FIXED = {
    "hypernet": "the weights so far have its shape",
    "init": "the run has started, and does not start again",
    "seed": "images held out for validation would have been trained on",
    "validation.images": "images held out for validation would have been trained on",
}
"""Keys, or groups of keys, that cannot change during a run, and why."""

READ_KEYS = ("holdout", "image_size", "label_column", "skip_unreadable")
"""Keys about how images are read."""

FREE = ("max_minutes", "workers", "cuda_workers", "cuda_graphs", "device", "prefetch")
"""Keys about where and how long a run takes place, not about its result; they may change with every resume."""

Changes = dict[str, tuple[Any, Any]]
"""Dotted key -> its value before and now."""


def recipe_of(state: State) -> Recipe:
    """Returns the recipe of a saved run.

    Raises:
        CheckpointError: This version cannot read it.
    """
    try:
        return Recipe.model_validate_json(state.recipe)
    except ValidationError as error:
        raise CheckpointError(
            f"{state.path} holds a recipe that this version of ghnq cannot read ({explain(error, Recipe)}); "
            "resume the run with the version that made it"
        ) from error


def merge_recipes(recipe: Recipe, before: Recipe, *, override: bool) -> tuple[Recipe, Changes]:
    """Returns the recipe that a run continues with, with the minutes it was given, and the keys that changed.

    Raises:
        TrainingError: A key changed without `override`, or one that cannot change.
    """
    old, new = (json.loads(without_folders(each).model_dump_json()) for each in (before, recipe))
    changes = _changes(old, new, "")
    for key in FREE:
        changes.pop(key, None)
    if changes and not override:
        raise TrainingError(
            f"a resumed run must keep its recipe; changed: {_describe(changes)}. Add --override to go on with the new "
            "values, or change them back"
        )
    for key, change in changes.items():
        for fixed, reason in FIXED.items():
            if f"{key}.".startswith(f"{fixed}."):
                raise TrainingError(
                    f"--override cannot change {_describe({key: change})}: {reason}; start a new run in another --out"
                )
    return recipe.model_copy(update={"max_minutes": before.max_minutes}), changes


def without_folders(recipe: Recipe) -> Recipe:
    """Returns the recipe as it is written: data, checkpoint and soft labels by name, without folders."""
    names = {
        "data": data_name(recipe.data),
        "init": None if recipe.init is None else checkpoint_name(recipe.init),
        "soft_labels": None if recipe.soft_labels is None else file_name(recipe.soft_labels),
    }
    return recipe.model_copy(update=names)


def reading_difference(before: Recipe, recipe: Recipe) -> str:
    """Returns in what the images of a resumed run are read in another way than before; empty where in nothing."""
    keys = {key: (getattr(before, key), getattr(recipe, key)) for key in READ_KEYS}
    return _describe({key: change for key, change in keys.items() if change[0] != change[1]})


def check_data(state: State, before: Recipe, recipe: Recipe, dataset: ImageDataset) -> Recipe:
    """Checks that the images fit a resumed run.

    Args:
        state: The state that the run resumes from.
        before: Its recipe.
        recipe: The recipe now.
        dataset: The images now, with those for validation.

    Returns:
        The recipe before, with the name that the data have now where they are the same images.

    Raises:
        TrainingError: Classes or input shape differ, or there are other images under the same name.
    """
    task, classes = state.task, before.hypernet.num_classes
    if (dataset.input_shape, dataset.num_classes) != (task.image_shape, classes):
        raise TrainingError(
            f"the run was started on '{before.data}', images of shape {task.image_shape} in {classes} classes; "
            f"'{recipe.data}' has shape {dataset.input_shape} and {dataset.num_classes} classes, which no --override "
            "can change; start a new run in another --out"
        )
    # States of earlier versions have no hash.
    now = task_of(recipe, dataset, None if task.data_sha256 is None else dataset.content_hash)
    # The content decides, not the name; nor how they were read, which states of earlier versions do not have.
    same = now.model_copy(update={"data": task.data, "read_options": task.read_options}) == task
    if data_name(recipe.data) == data_name(before.data) and not same:
        raise TrainingError(
            f"the images of '{recipe.data}' are not those the run was started with "
            f"({reading_difference(before, recipe) or 'their content, mean or deviation differs'}); bring them back, "
            "or start a new run in another --out"
        )
    moved = same and task.data_sha256 is not None
    return before.model_copy(update={"data": recipe.data}) if moved else before


def _describe(changes: Changes) -> str:
    return ", ".join(f"{key} (was {old!r}, now {new!r})" for key, (old, new) in sorted(changes.items()))


def _changes(before: dict[str, Any], now: dict[str, Any], prefix: str) -> Changes:
    changes: Changes = {}
    for key in now:
        old, new = before.get(key), now[key]
        if isinstance(old, dict) and isinstance(new, dict):
            changes |= _changes(old, new, f"{prefix}{key}.")
        elif old != new:
            changes[prefix + key] = old, new
    return changes
