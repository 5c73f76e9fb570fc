"""Files and folders of the user that have the name of a library, and so are imported in its place."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from ghnq.errors import GhnqError


def shadowed_library() -> str | None:
    """Returns a sentence about the first library of ghnq that is not the installed one, or None.

    Python searches the working directory (`python -m ghnq`) and the folder of a model file before the installed
    libraries: a folder `datasets` there is imported instead of the library `datasets`.
    """
    return next((sentence for name in _libraries() if (sentence := shadow_of(name))), None)


def shadow_of(name: str) -> str | None:
    """Returns a sentence about what is imported in place of one library, or None."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return None
    place = Path(file).parent if Path(file).stem == "__init__" else Path(file)
    if _is_installed(place):
        return None
    return (
        f"'{place}' is imported in place of the library '{name}', which has the same name; rename it, or start "
        "Python in another folder (`ghnq` instead of `python -m ghnq`)"
    )


def check_not_shadowed(name: str) -> None:
    """Checks that the library of this name, which is imported already, is the installed one.

    Raises:
        GhnqError: A file or folder of the user's has its name.
    """
    if sentence := shadow_of(name):
        raise GhnqError(sentence)


def _libraries() -> list[str]:
    """Returns the names under which the dependencies of ghnq are imported."""
    other_names = {"pillow": "PIL", "pyyaml": "yaml", "lightning-fabric": "lightning_fabric"}
    found = []
    for requirement in metadata.requires("ghnq") or ():
        name = requirement.split(";")[0].strip()
        for end in "<>=!~[ ":
            name = name.split(end)[0]
        found.append(other_names.get(name.lower(), name.replace("-", "_")))
    return list(dict.fromkeys(found))


def _is_installed(place: Path) -> bool:
    """Returns whether a module is where packages are installed, or where a package that is installed editable is."""
    if {"site-packages", "dist-packages"} & {*place.parts} or any(place.parent.glob("*.dist-info")):
        return True  # the second is what `pip install --target` makes
    searched_first = {Path.cwd(), *(Path(folder).resolve() for folder in sys.path if folder)}
    stdlib = Path(metadata.__file__).parents[2]
    return place.is_relative_to(stdlib) or place.resolve().parent not in searched_first
