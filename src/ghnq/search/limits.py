"""The budget of the device: candidates above it are left out before anything is predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from ghnq.errors import GhnqError
from ghnq.search.sizes import Sizes


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest sizes that are allowed; None allows any.

    Attributes:
        parameters, multiply_adds, bytes, peak_memory: Of `Sizes`.

    Raises:
        GhnqError: A limit is not positive.
    """

    parameters: int | None = None
    multiply_adds: int | None = None
    bytes: int | None = None
    peak_memory: int | None = None

    def __post_init__(self) -> None:
        for name, limit in self.set().items():
            if limit < 1:
                raise GhnqError(f"{OPTIONS[name]} {limit:,} leaves no candidate; give a positive number")

    def set(self) -> dict[str, int]:
        """Returns the limits that there are, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in found.items() if limit is not None}

    def exceeded(self, sizes: Sizes) -> list[str]:
        """Returns the names of the limits that a candidate exceeds; an unknown size exceeds every limit."""
        found = sizes.document()
        return [name for name, limit in self.set().items() if (size := found[name]) is None or size > limit]


OPTIONS: Mapping[str, str] = {
    "parameters": "--max-params",
    "multiply_adds": "--max-macs",
    "bytes": "--max-bytes",
    "peak_memory": "--max-memory",
}
"""The option of each limit."""


@dataclass(frozen=True)
class Filtered:
    """What is left of the candidates, and what the limits took.

    Attributes:
        kept: Names, in order.
        taken: By the limit that took them, names; a candidate above several limits is with the first of them.
    """

    kept: list[str]
    taken: dict[str, list[str]]

    def explain(self, limits: Limits) -> str:
        """Returns one line: how many each limit took."""
        parts = [f"{OPTIONS[name]} {limits.set()[name]:,} took {len(names):,}" for name, names in self.taken.items()]
        return ", ".join(parts) or "no limit took any"


def within_limits(sizes: Mapping[str, Sizes], limits: Limits) -> Filtered:
    """Filters candidates by their sizes, which are given by name."""
    taken: dict[str, list[str]] = {name: [] for name in limits.set()}
    kept = []
    for name, found in sizes.items():
        exceeded = limits.exceeded(found)
        if exceeded:
            taken[exceeded[0]].append(name)
        else:
            kept.append(name)
    return Filtered(kept, taken)


def smallest(sizes: Iterable[Sizes]) -> dict[str, int]:
    """Returns the least of each size, of those that are known: what a limit must be at least to keep a candidate."""
    found = [each.document() for each in sizes]
    return {name: min(v) for name in OPTIONS if (v := [size for d in found if (size := d[name]) is not None])}
