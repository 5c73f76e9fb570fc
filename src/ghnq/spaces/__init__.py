"""Where unseen architectures come from."""

from __future__ import annotations

from ghnq.errors import SpaceError, nearest
from ghnq.spaces import convnets as convnets

SPACES = ("convnets",)


def resolve(name: str) -> convnets.Spec:
    """Returns the architecture called `space/split/index`. Raises SpaceError that says which part is wrong.

    >>> resolve("convnets/test/17") == convnets.spec("test", 17)
    True
    """
    parts = name.split("/")
    if len(parts) != 3:
        raise SpaceError(
            f"{name!r} is not the name of an architecture: write space/split/index, as in convnets/test/17"
        )
    space, split, index = parts
    if space not in SPACES:
        raise SpaceError(f"there is no space {space!r}{nearest(space, SPACES)}; there is {', '.join(SPACES)}")
    if not (index.isascii() and index.isdigit()):
        raise SpaceError(f"the index in {name!r} must be an integer from 0 on, not {index!r}")
    return convnets.spec(split, int(index))
