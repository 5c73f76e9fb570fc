"""The interface of a reader: which files a kind of result is recognised by, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghnq.errors import DataError
from ghnq.report.document import Document

_OTHER_VERSION = "was written by another version of ghnq, or not by ghnq; make it again with this one"


@dataclass(frozen=True)
class Reader:
    """Reads one kind of result.

    Attributes:
        kind: The command that writes it.
        recognises: Returns whether a folder has such a result, by the names of its files.
        read: Reads it; raises DataError where files are damaged or of another version.
        files: What a folder of this kind has, for messages.
    """

    kind: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Document]
    files: str


def read_object(file: Path, required: Sequence[str]) -> dict[str, Any]:
    """Reads a JSON object that has some keys.

    Raises:
        DataError: It cannot be read, is cut off, or lacks a key.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"'{file}' cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{file}' is damaged or half-written ({error}); make it again") from error
    missing = [key for key in required if not isinstance(document, dict) or key not in document]
    if missing:
        raise DataError(f"'{file}' {_OTHER_VERSION} (it lacks {', '.join(missing)})")
    assert isinstance(document, dict)
    return document


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Reads a file that has a JSON object on each line.

    Raises:
        DataError: It cannot be read, or a line is not an object.
    """
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise DataError(f"'{file}' cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{file}' is damaged or half-written ({error}); make it again") from error
    if not all(isinstance(line, dict) for line in lines):
        raise DataError(f"'{file}' {_OTHER_VERSION} (a line is not an object)")
    return lines


def read_with_lines(
    folder: Path, file: str, required: Sequence[str], lines_file: str, *, again: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads a result (`read_object`) and the lines beside it (`read_lines`).

    Args:
        again: What to do where the lines are not there.

    Raises:
        DataError: One of the two is missing, or cannot be read.
    """
    content = read_object(folder / file, required)
    if not (folder / lines_file).is_file():
        raise DataError(f"'{folder}' is half-written: it has {file}, but no {lines_file}; {again}")
    return content, read_lines(folder / lines_file)


def reading(file: Path, make: Callable[[], Document]) -> Document:
    """Returns what `make` makes of the content of a file; a value of an unexpected kind is told as another version.

    Raises:
        DataError: The content is not what this version writes.
    """
    try:
        return make()
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise DataError(f"'{file}' {_OTHER_VERSION} ({type(error).__name__}: {error})") from error


def facts(document: dict[str, Any], *keys: str) -> list[tuple[str, str]]:
    """Returns those keys of a JSON object that are there and have a simple value, with readable names."""
    found = []
    for key in keys:
        value = document.get(key)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            found.append((key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)))
    return found


def number(value: object) -> float | None:
    """Returns a number of a JSON document; None for null.

    Raises:
        TypeError: It is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return value


def protocol_and_steps(document: dict[str, Any]) -> tuple[str, str]:
    """Returns protocol and post-training steps of a summary as texts; steps that differ between schemes by scheme."""
    settings = document.get("settings")
    if isinstance(settings, dict):
        steps = {name: " + ".join(str(setting).split(" + ")[1:]) for name, setting in settings.items()}
        listed = "; ".join(f"{name}: {text}" for name, text in steps.items() if text)
    else:
        listed = " + ".join(map(str, document.get("steps", ())))
    return str(document.get("protocol", "deploy")), listed


def steps_fact(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the post-training steps as a fact; nothing where there are none."""
    steps = protocol_and_steps(document)[1]
    return [("steps", steps)] if steps else []
