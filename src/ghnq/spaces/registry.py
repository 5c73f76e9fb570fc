"""The spaces by name: registered ones, and entry points of installed packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import cast

from ghnq.errors import SpaceError, nearest
from ghnq.spaces.space import S, Space, Spec

DEFAULT = "convnets"
ENTRY_POINTS = "ghnq.spaces"
"""The group of entry points: `tiny = "my_package.tiny:SPACE"` makes the space `tiny` available in every process."""

_SPACES: dict[str, Space[Spec]] = {}


def register(space: Space[S]) -> None:
    """Makes a space available by its name, in this process.

    Training with several processes starts new ones. A script registers the space at its top level, outside
    `if __name__ == "__main__":`, so that these do as well; a package declares an entry point (`ENTRY_POINTS`).

    Raises:
        SpaceError: The name is taken or contains `/`, or the space has no split `train` or an empty split.
    """
    name = space.name
    if not name or "/" in name:
        raise SpaceError(f"a space needs a name without '/', got {name!r}")
    if "train" not in space.splits or min(space.splits.values()) < 1:
        raise SpaceError(f"the space {name!r} needs a split 'train' and no empty split, got {dict(space.splits)}")
    if _SPACES.get(name, space) is not space:
        raise SpaceError(f"there already is a space {name!r}; choose another name")
    # A spec is only ever passed to the space that it comes from.
    _SPACES[name] = cast(Space[Spec], space)


def unregister(name: str) -> None:
    """Removes a space that `register` has added; does nothing if there is none of that name."""
    _SPACES.pop(name, None)


def get(name: str) -> Space[Spec]:
    """Returns the space of that name.

    Raises:
        SpaceError: There is no such space, or its package cannot be imported.
    """
    if name not in _SPACES:
        points = _entry_points()
        if name not in points:
            allowed = names()
            raise SpaceError(f"there is no space {name!r}{nearest(name, allowed)}; spaces are {', '.join(allowed)}")
        register(_load(points[name]))
    return _SPACES[name]


def names() -> tuple[str, ...]:
    """Returns the names of all spaces."""
    return tuple(dict.fromkeys([*_SPACES, *_entry_points()]))


def resolve(name: str) -> tuple[Space[Spec], Spec]:
    """Returns the space and the spec of the architecture named `space/split/index`.

    Raises:
        SpaceError: The name has another form, or the space, split or index does not exist.

    >>> space, spec = resolve("convnets/test/17")
    >>> spec == space.spec("test", 17)
    True
    """
    parts = name.split("/")
    if len(parts) != 3:
        raise SpaceError(
            f"{name!r} is not the name of an architecture: write space/split/index, as in convnets/test/17"
        )
    space, (split, index) = get(parts[0]), parts[1:]
    if not (index.isascii() and index.isdigit()):
        raise SpaceError(f"the index in {name!r} must be an integer from 0 on, not {index!r}")
    return space, space.spec(split, int(index))


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _load(point: EntryPoint) -> Space[Spec]:
    try:
        space = cast(Space[Spec], point.load())
    except (ImportError, AttributeError) as error:
        raise SpaceError(f"the space {point.name!r} cannot be imported from {point.value}: {error}") from error
    if space.name != point.name:
        raise SpaceError(f"the entry point {point.name!r} ({point.value}) is a space with the name {space.name!r}")
    return space
