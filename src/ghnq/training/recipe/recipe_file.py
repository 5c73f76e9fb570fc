"""Reading, checking and writing recipes: YAML, overrides of single keys, messages about wrong keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ghnq.errors import RecipeError, nearest
from ghnq.training.recipe.schema import Recipe
from ghnq.validation_errors import ErrorFields, dotted, explain_one
from ghnq.yaml_loader import load_yaml


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Reads a YAML recipe and applies `key=value` overrides (dotted keys, YAML values).

    Raises:
        RecipeError: There is no such file, it is not YAML, or a key or value is wrong.
    """
    path = Path(path)
    if not path.is_file():
        near = [p.name for p in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        raise RecipeError(
            f"there is no recipe '{path}'{nearest(path.name, near)}; "
            f"recipes in '{path.parent}': {', '.join(near) or 'none'}"
        )
    try:
        raw = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} must hold a mapping of keys to values, not {type(raw).__name__}")
    for override in overrides:
        _apply(raw, override)
    return validate_recipe(raw, str(path))


def validate_recipe(raw: dict[str, Any], source: str) -> Recipe:
    """Checks keys and values.

    Raises:
        RecipeError: A key or value is wrong; the message names each, what was given, and the nearest known key.
    """
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{source}: " + "; ".join(map(_explain, error.errors(include_url=False)))) from error


def dump_recipe(recipe: Recipe) -> str:
    """Returns the recipe as YAML, with every key."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def known_keys() -> list[str]:
    """Returns every key of a recipe, dotted."""
    return _keys(Recipe, "")


def _keys(model: type[BaseModel], prefix: str) -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += _keys(kind, f"{prefix}{name}.")
    return keys


def _explain(problem: ErrorFields) -> str:
    key = dotted(problem["loc"])
    if problem["type"] != "extra_forbidden":
        return explain_one(problem, Recipe)
    keys = known_keys()
    siblings = [k for k in keys if k.rpartition(".")[0] == key.rpartition(".")[0]]
    return f"unknown key '{key}'{nearest(key, siblings) or nearest(key, keys)}; known here: {', '.join(siblings)}"


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"'{override}' is not KEY=VALUE, for example steps=100 or optimizer.lr=0.001")
    *parents, last = key.split(".")
    target: dict[str, Any] = raw
    for parent in parents:
        child = target.setdefault(parent, {})
        if not isinstance(child, dict):
            raise RecipeError(f"'{override}': '{parent}' is a value, not a group of keys")
        target = child
    try:
        target[last] = load_yaml(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"'{override}': the value is not YAML: {error}") from error
