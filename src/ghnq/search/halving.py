"""Successive halving (Karnin et al. 2013; Jamieson and Talwalkar 2016, arXiv 1502.07943): all candidates get a small
budget, the better part of them a larger one, and so on; only the last few get all of it. Where a signal takes training,
there are two rounds of it, before which a signal that takes images alone brings the candidates down: in the seconds
that this takes, a training shows less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ghnq.search.signals import SCREENING, SIGNALS, Effort, Signal
from ghnq.search.subject import Budget

ETA = 3
"""Budgets grow by this factor from rung to rung, and the number of candidates falls by it."""
SPARE = 3
"""No rung but the last gets fewer than this many candidates for each that is wanted."""
MIN_IMAGES = 50
"""The fewest images of a rung: with fewer, chance decides."""


@dataclass(frozen=True)
class Rung:
    """One round.

    Attributes:
        candidates: How many are measured.
        signal: The name of what is measured.
        budget: For each.
    """

    candidates: int
    signal: str
    budget: Budget


def plan(candidates: int, top: int, signal: Signal, full: Budget, *, halve: bool = True) -> list[Rung]:
    """Returns the rounds that bring candidates to the `top` best ones.

    Args:
        signal: What decides. One that takes no images has one round.
        full: The budget of the last round; its seconds are for signals that take training.
        halve: Whether to halve at all; if not, all candidates get the full budget.
    """
    if signal.effort is Effort.TRAINING:
        few, more = SPARE * top, ETA * SPARE * top
        if not halve or candidates <= few:
            return [Rung(candidates, signal.name, full)]
        screening = plan(candidates, more, SIGNALS[SCREENING], full) if candidates > more else []
        short = Budget(full.images, full.seconds / ETA)
        return [*screening, Rung(min(candidates, more), signal.name, short), Rung(few, signal.name, full)]
    full = Budget(full.images if signal.needs_images else 0)
    most = 1 + math.floor(math.log(max(full.images / MIN_IMAGES, 1), ETA) + 1e-9)
    if not halve or full.images == 0 or candidates <= SPARE * top:
        return [Rung(candidates, signal.name, full)]
    plans = [_rungs(candidates, SPARE * top, signal, full.images, number) for number in range(1, most + 1)]
    return min(plans, key=lambda rungs: sum(rung.candidates * rung.budget.images for rung in rungs))


def _rungs(candidates: int, last: int, signal: Signal, images: int, number: int) -> list[Rung]:
    """Returns so many rounds, of which the last has all images and `last` candidates, or more."""
    shares = [ETA ** (number - 1 - position) for position in range(number)]
    counts = [max(last, math.ceil(candidates / ETA**position)) for position in range(number)]
    return [
        Rung(count, signal.name, Budget(math.ceil(images / share))) for count, share in zip(counts, shares, strict=True)
    ]


def best_first(names: Sequence[str], values: Mapping[str, float | None]) -> list[str]:
    """Returns names by falling value; None comes last, and of equal values the name that comes first."""
    worst = -math.inf
    return sorted(names, key=lambda name: -worst if (value := values[name]) is None else -value)
