"""How candidates are ranked: what decides, within which budget, and how many of the best are wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

from ghnq.errors import GhnqError
from ghnq.search.ledger import On
from ghnq.search.limits import Limits
from ghnq.search.signals import Signal
from ghnq.search.subject import Budget

DEFAULT_BUDGET = Budget(2000, 30.0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How candidates are ranked.

    Attributes:
        by: What decides.
        limits: What candidates may cost.
        top: How many of the best are wanted.
        budget: Of the last round, and with its images of the measurement of the best.
        halve: Whether most candidates get less.
        on: What the best are measured on at the end, besides the held-out images.
        max_latency: Milliseconds for one image, measured for the best only; None allows any.

    Raises:
        GhnqError: A number is out of range.
    """

    by: Signal
    limits: Limits = field(default_factory=Limits)
    top: int = 10
    budget: Budget = DEFAULT_BUDGET
    halve: bool = True
    on: On = "val"
    max_latency: float | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise GhnqError(f"--top is {self.top}; give at least 1")
        if self.budget.images < 1:
            raise GhnqError(f"--images is {self.budget.images}; give at least 1")
        if not 0 < self.budget.seconds < float("inf"):
            raise GhnqError(f"--minutes is {self.budget.seconds / 60:g}; give a positive number")
        if self.max_latency is not None and not 0 < self.max_latency < float("inf"):
            raise GhnqError(f"--max-latency is {self.max_latency:g}; give a positive number of milliseconds")
