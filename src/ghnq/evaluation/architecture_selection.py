"""Which architectures of a space are evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from ghnq import spaces
from ghnq.errors import SpaceError, nearest
from ghnq.spaces import Space, Spec


def architectures(
    splits: Sequence[str], limit: int | None = None, space: Space[Spec] | None = None
) -> list[tuple[str, int]]:
    """Returns (split, index) of the members of whole splits, and of single members written SPLIT/INDEX, each once.

    Args:
        limit: How many members of each whole split, from the first; None is all.
        space: Where they come from; None is the default space.

    Raises:
        SpaceError: A split or an index does not exist, or all of `train` is asked for.
    """
    space = spaces.get(spaces.DEFAULT) if space is None else space
    if not splits:
        raise SpaceError(f"No split to evaluate; give some of {', '.join(space.splits)}.")
    if limit is not None and limit < 1:
        raise SpaceError(f"A limit of {limit} leaves no architecture; give at least 1.")
    members = [member for text in splits for member in _members(text, limit, space)]
    return list(dict.fromkeys(members))


def _members(text: str, limit: int | None, space: Space[Spec]) -> list[tuple[str, int]]:
    """Returns the members of a whole split, or the one member that is written SPLIT/INDEX."""
    sizes = space.splits
    split, slash, index = text.partition("/")
    if split not in sizes:
        raise SpaceError(
            f"There is no split '{split}'{nearest(split, sizes)}. Splits are "
            f"{', '.join(sizes)}; one architecture is SPLIT/INDEX, for example test/17."
        )
    if slash:
        spaces.resolve(f"{space.name}/{text}")  # Raises SpaceError for an index that does not exist.
        return [(split, int(index))]
    if split == "train" and limit is None:
        raise SpaceError(f"The split 'train' has {sizes['train']:,} architectures; give a limit.")
    return [(split, number) for number in range(min(sizes[split], limit or sizes[split]))]
