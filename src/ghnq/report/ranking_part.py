"""What a page shows of a ranking: every candidate with its sizes, what became of it, and what the order is worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ghnq.report.columns import columns_of

SIZES = ("parameters", "multiply_adds", "bytes", "peak_memory")
"""Of a candidate at the scheme that is ranked by."""


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """One candidate that could be traced.

    Attributes:
        model: Its name.
        limit: The option of the limit that took it; empty where none did.
        round: The last round that it was measured in, counted from 1; None for one that was not measured.
        value: Of the signal in that round; None where there is none.
        place: Among the best, counted from 1; None for the others.
        parameters, multiply_adds, bytes, peak_memory: None where they are not known.
    """

    model: str
    limit: str = ""
    round: int | None = None
    value: float | None = None
    place: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    bytes: int | None = None
    peak_memory: int | None = None


@dataclass(frozen=True, kw_only=True)
class BestRow:
    """One of the best.

    Attributes:
        accuracy: Percent of the held-out training images, by scheme.
        test: The same of the test images; empty where they were not asked for.
        latency_ms: None where it was not measured.
        pareto: Whether none of the best is as accurate and as small in everything.
    """

    model: str
    accuracy: dict[str, float | None]
    test: dict[str, float | None]
    latency_ms: float | None
    pareto: bool


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """One round.

    Attributes:
        signal: What the candidates were ranked by.
        seconds: Of training for each candidate.
    """

    candidates: int
    signal: str
    images: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WorthRow:
    """How well a signal orders networks.

    Attributes:
        tau: Kendall's tau with the accuracy of trained networks.
        interval: Its 95 % interval; None where it was not measured, as for the others.
        within_budget: The same among networks of equal multiply-adds.
        within_interval: Of that.
    """

    signal: str
    tau: float
    interval: tuple[float, float] | None
    within_budget: float | None
    within_interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class RankingPart:
    """A ranking.

    Attributes:
        signal: What was ranked by.
        scheme: At which scheme.
        images: Held-out training images of the last round.
        all: How many candidates there were, those that are left out here and those that failed included.
        limits: The limits that were given, by option.
        worth: What the order is worth, in sentences.
        signals: What the order of each signal was measured to be worth.
        failures: Names of candidates that failed, and why.
    """

    signal: str
    scheme: str
    images: int
    all: int
    limits: dict[str, int]
    worth: list[str]
    signals: list[WorthRow]
    rounds: list[RoundRow]
    best: list[BestRow]
    candidates: list[CandidateRow]
    failures: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns the ranking as JSON; the candidates as columns."""
        return asdict(replace(self, candidates=[])) | {"candidates": columns_of(self.candidates, CandidateRow)}
