"""What `ghnq train` writes: a log, the resolved recipe, checkpoints."""

from __future__ import annotations

from pathlib import Path

import yaml

from ghnq.errors import DataError
from ghnq.report.document import Document
from ghnq.report.readers.reader import Reader
from ghnq.report.readers.training_log import read_curves
from ghnq.runs.command_record import recorded_commands
from ghnq.runs.metrics_log import LOG
from ghnq.yaml_loader import load_yaml

RECIPE = "recipe.yaml"
_KEYS = ("data", "space", "steps", "max_minutes", "meta_batch", "batch_size", "crop", "seed", "init")


def _recognises(folder: Path) -> bool:
    return (folder / LOG).is_file() and (folder / RECIPE).is_file()


def _read(folder: Path) -> Document:
    curves, notes = read_curves(folder)
    if not curves:
        raise DataError(f"'{folder / LOG}' has no entry yet; a run writes one every `log_every` steps")
    return Document(
        name=folder.name or str(folder),
        kind="train",
        folder=str(folder),
        facts=_facts(folder / RECIPE, notes),
        commands=recorded_commands(folder),
        notes=notes,
        curves=curves,
    )


def _facts(file: Path, notes: list[str]) -> list[tuple[str, str]]:
    """Returns the keys of the recipe that a reader asks for first; the recipe may be of another version."""
    try:
        recipe = load_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        notes.append(f"The recipe cannot be read: {error}")
        return []
    if not isinstance(recipe, dict):
        return []
    return [(key.replace("_", " "), str(recipe[key])) for key in _KEYS if recipe.get(key) is not None]


READER = Reader("train", _recognises, _read, f"{LOG} and {RECIPE}")
