"""What candidates can be ranked by: functions of one candidate, larger for better ones.

A signal returns None where a network is not finite: such a candidate comes last. A new signal needs a line in
`SIGNALS`, and an entry in `evidence.json` once it is known what its order is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import torch.nn.functional as F

from ghnq.errors import GhnqError, NotFiniteError, nearest
from ghnq.prediction import logits_of
from ghnq.search.evidence import Fitted, evidence
from ghnq.search.short_finetuning import finetuned_accuracy, trained_accuracy
from ghnq.search.subject import Budget, Subject
from ghnq.search.zero_cost import naswot, synflow

DEFAULT = "fitted-training"
SCREENING = "fitted"
"""What brings many candidates down to few, before each of these is trained for a signal that takes training."""


class Effort(IntEnum):
    """What a signal takes, and so over which budgets candidates can be halved: none, images, or fine-tuning too."""

    GRAPH = 0
    FIXED = 1
    IMAGES = 2
    TRAINING = 3


@dataclass(frozen=True)
class Signal:
    """Something to rank by.

    Attributes:
        name: As `--by` takes it.
        summary: For help and tables.
        effort: What it takes.
        measure: Its value for a candidate; None for one that is not finite.
        worst: Below any value, for what takes no None.
    """

    name: str
    summary: str
    effort: Effort
    measure: Callable[[Subject], float | None]
    worst: float = 0.0

    @property
    def needs_images(self) -> bool:
        """Whether the value depends on how many images a budget has."""
        return self.effort >= Effort.IMAGES


def accuracy(subject: Subject) -> float:
    """Returns the accuracy at the scheme on held-out images with predicted parameters, percent."""
    count = subject.network.count_correct(subject.scheme, subject.images)
    return 100 * count.correct / len(subject.images)


def negative_loss(subject: Subject) -> float | None:
    """Returns minus the mean cross entropy at the scheme on held-out images with predicted parameters, in nats."""
    try:
        logits = logits_of(subject.network.quantized(subject.scheme), subject.normalised)
    except NotFiniteError:
        return None
    value = -float(F.cross_entropy(logits.double(), subject.images.labels))
    return value if math.isfinite(value) else None


def log_multiply_adds(subject: Subject) -> float | None:
    """Returns log10 of the multiply-adds; None where there are none."""
    return _log10(subject.sizes.multiply_adds)


def log_parameters(subject: Subject) -> float | None:
    """Returns log10 of the parameters; None where there are none."""
    return _log10(subject.sizes.parameters)


def combined(fit: Fitted, subject: Subject) -> float | None:
    """Returns a linear combination of other signals; None where one of them is None."""
    total = 0.0
    for name, weight in fit.terms.items():
        value = SIGNALS[name].measure(subject)
        if value is None:
            return None
        total += weight * value
    return total


def worth_lines(signal: Signal, budget: Budget) -> list[str]:
    """Returns how far the order of a signal can be trusted, measured within a budget, in a few sentences."""
    return evidence().lines(
        signal.name,
        images=budget.images if signal.needs_images else None,
        training_seconds=budget.seconds if signal.effort is Effort.TRAINING else None,
    )


def _log10(value: int) -> float | None:
    return math.log10(value) if value > 0 else None


def _signals() -> dict[str, Signal]:
    single = [
        Signal("accuracy", "predicted accuracy, %", Effort.IMAGES, accuracy),
        Signal("loss", "minus predicted loss, nats", Effort.IMAGES, negative_loss, worst=-1000.0),
        Signal("finetune", "accuracy after a short fine-tuning, %", Effort.TRAINING, finetuned_accuracy),
        Signal("train", "accuracy after a short training, %", Effort.TRAINING, trained_accuracy),
        Signal("macs", "log10 multiply-adds", Effort.GRAPH, log_multiply_adds),
        Signal("params", "log10 parameters", Effort.GRAPH, log_parameters),
        Signal("synflow", "log10 synaptic flow", Effort.FIXED, synflow),
        Signal("naswot", "naswot", Effort.FIXED, naswot),
    ]
    found = {each.name: each for each in single}
    fits = [
        Signal(name, "a weighted sum of signals", max(found[term].effort for term in fit.terms), partial(combined, fit))
        for name, fit in evidence().fits.items()
    ]
    return found | {fit.name: fit for fit in fits}


SIGNALS: Mapping[str, Signal] = _signals()
"""Signals by name."""


def signal_of(name: str) -> Signal:
    """Returns the signal of that name.

    Raises:
        GhnqError: There is none.
    """
    if name not in SIGNALS:
        raise GhnqError(f"there is no signal '{name}'{nearest(name, SIGNALS)}; --by takes {', '.join(SIGNALS)}")
    return SIGNALS[name]
