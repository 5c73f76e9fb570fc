"""Named decisions with finite ranges, of which a search space is made: what a sampler chooses, without a library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ghnq.errors import SpaceError

Value = int | str
Values = Mapping[str, Value]
"""One value for every decision, by name."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few options without an order."""

    options: tuple[Value, ...]

    def allows(self, value: object) -> bool:
        """Returns whether the value is one of the options, of the same type."""
        return any(value == option and type(value) is type(option) for option in self.options)

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self.options))


@dataclass(frozen=True, slots=True)
class IntegerRange:
    """An integer from low to high, both included, in steps from low on."""

    low: int
    high: int
    step: int = 1

    def allows(self, value: object) -> bool:
        """Returns whether the value is in the range and on one of its steps."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def __str__(self) -> str:
        return f"an integer from {self.low} to {self.high} in steps of {self.step}"


Decision = Choice | IntegerRange


def check_values(values: Values, decisions: Mapping[str, Decision]) -> None:
    """Checks that there is one allowed value for every decision.

    Raises:
        SpaceError: A decision has no value or one that is not allowed, or a value belongs to none.
    """
    for name, decision in decisions.items():
        if name not in values:
            raise SpaceError(f"the decision '{name}' has no value; it is {decision}")
        if not decision.allows(values[name]):
            raise SpaceError(f"the decision '{name}' is {decision}, not {values[name]!r}")
    if unknown := [name for name in values if name not in decisions]:
        raise SpaceError(f"the space has no decision '{unknown[0]}'")
