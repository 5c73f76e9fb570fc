"""A spec as a JSON file, which says of which space it is: `{"space": "convnets", "spec": {...}}`.

A file with nothing but the spec (`Spec.to_json`) is read as one of the default space.
"""

from __future__ import annotations

import json
from pathlib import Path

from ghnq.errors import SpaceError, nearest
from ghnq.files import write_text
from ghnq.spaces.registry import DEFAULT, get
from ghnq.spaces.space import Space, Spec

_HELP = "a spec file is what `ghnq spaces show --json` and `ghnq rank --out` write, or Spec.to_json()"


def read_spec_file(file: Path) -> tuple[Space[Spec], Spec]:
    """Returns the space and the spec in a file.

    Raises:
        SpaceError: There is no such file, it is not a spec, or there is no such space; the message names the file.
    """
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        others = [other.name for other in file.parent.glob("*.json")] if file.parent.is_dir() else []
        raise SpaceError(f"there is no file '{file}'{nearest(file.name, others)}; {_HELP}") from error
    except OSError as error:
        raise SpaceError(f"'{file}' cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"'{file}' is not JSON ({error}); {_HELP}") from error
    if not isinstance(content, dict):
        raise SpaceError(f"'{file}' holds a {type(content).__name__}, not an object; {_HELP}")
    name, spec = content.get("space", DEFAULT), content.get("spec", content)
    if not isinstance(name, str):
        raise SpaceError(f"'{file}': space is {name!r}; it must be the name of a space")
    try:
        space = get(name)
        return space, space.spec_from_json(json.dumps(spec))
    except SpaceError as error:
        raise SpaceError(f"'{file}': {error}") from error


def write_spec_file(file: Path, space: str, spec: Spec) -> None:
    """Writes a spec, whole or not at all."""
    content = {"space": space, "structure_hash": spec.structure_hash, "spec": json.loads(spec.to_json())}
    write_text(file, json.dumps(content, indent=2) + "\n")
