"""What the order of each signal was measured to be worth, and the fitted combinations: data, in `evidence.json`.

A study replaces that file; nothing here has to change.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Worth(_Value):
    """How well a signal orders networks.

    Attributes:
        tau: Kendall's rank correlation with the target, -1 to 1.
        interval: Its 95 % interval; None where it was not measured.
        within_budget: The same among networks of equal multiply-adds; None where it was not measured.
        within_interval: Of that.
        lost_by_top_5: Percentage points that the best of the signal's first five has less than the best of all, within
            a budget; None where it was not measured.
        seconds: Of one core for a candidate; None where they were not measured.
    """

    tau: float = Field(ge=-1, le=1)
    interval: tuple[float, float] | None = None
    within_budget: float | None = Field(default=None, ge=-1, le=1)
    within_interval: tuple[float, float] | None = None
    lost_by_top_5: float | None = None
    seconds: float | None = None

    def sentence(self, name: str) -> str:
        """Returns the figures in words."""
        within = ""
        if self.within_budget is not None:
            within = f", within a budget {self.within_budget:.2f}{_bounds(self.within_interval)}"
        lost = ""
        if self.lost_by_top_5 is not None:
            lost = f"; the best of its first five is {self.lost_by_top_5:.1f} points below the best of a budget"
        return f"Kendall's tau of '{name}' is {self.tau:.2f}{_bounds(self.interval)}{within}{lost}."


class Fitted(Worth):
    """A linear combination of signals, and what its order is worth.

    Attributes:
        terms: The coefficient of each signal.
        note: How it was fitted.
    """

    terms: dict[str, float] = Field(min_length=1)
    note: str


class Evidence(_Value):
    """What was measured, on which networks.

    Attributes:
        target: What the signals were compared with.
        networks: How many networks.
        images: Held-out images of the signals that take images.
        training_seconds: Of those that take training.
        caution: What the comparison does not say.
        signals: By the name of the signal; a signal without an entry was not measured.
        fits: Combinations of signals, by the name that `--by` takes; `fitted-training` is the default, and
            `fitted` brings many candidates down to few before these are trained.
    """

    target: str
    networks: int
    images: int
    training_seconds: float
    caution: str
    signals: dict[str, Worth]
    fits: dict[str, Fitted] = Field(min_length=1)

    def documents(self) -> dict[str, dict[str, object]]:
        """Returns the rank correlations of every signal that was measured, for JSON."""
        kept = {"tau", "interval", "within_budget", "within_interval"}
        return {
            name: each.model_dump(include=kept, mode="json") for name, each in {**self.signals, **self.fits}.items()
        }

    def worth(self, signal: str) -> Worth | None:
        """Returns what is known of a signal."""
        return self.fits.get(signal) or self.signals.get(signal)

    def lines(self, signal: str, *, images: int | None = None, training_seconds: float | None = None) -> list[str]:
        """Returns how far the order of a signal can be trusted, in a few sentences.

        Args:
            images: That the signal was measured on; None where they do not matter, or are as many as in the study.
            training_seconds: Of each candidate; None likewise.
        """
        worth = self.worth(signal)
        if worth is None:
            return [f"How well '{signal}' orders networks has not been measured.", self.caution]
        formula = f" It is {_formula(worth)} ({worth.note})." if isinstance(worth, Fitted) else ""
        others = ", ".join(_short(name, each) for name, each in {**self.signals, **self.fits}.items() if name != signal)
        return [
            f"{worth.sentence(signal)}{formula} Of others{self._which()}: {others}. 1 is the right order, 0 is chance.",
            f"It was compared with the {self.target}.",
            *self._other_budget(images, training_seconds),
            self.caution,
        ]

    def _other_budget(self, images: int | None, training_seconds: float | None) -> list[str]:
        used = ((images, self.images, "images"), (training_seconds, self.training_seconds, "s of training"))
        other = [each for each in used if each[0] not in (None, each[1])]
        if not other:
            return []
        studied = " and ".join(f"{found:,g} {what}" for _, found, what in other)
        here = " and ".join(f"{asked:,g}" for asked, _, _ in other)
        return [f"These figures are of {studied}, here {here}: with less an order is worth less."]

    def _which(self) -> str:
        within = any(each.within_budget is not None for each in self.signals.values())
        return " (within a budget in brackets)" if within else ""


@cache
def evidence() -> Evidence:
    """Returns the evidence that comes with the package."""
    text = (files("ghnq.search") / "evidence.json").read_text(encoding="utf-8")
    return Evidence.model_validate_json(text)


def _formula(fitted: Fitted) -> str:
    parts = [name if weight == 1 else f"{weight:g} {name}" for name, weight in fitted.terms.items()]
    return " + ".join(parts).replace("+ -", "- ")


def _bounds(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"


def _short(name: str, worth: Worth) -> str:
    within = "" if worth.within_budget is None else f" ({worth.within_budget:.2f})"
    return f"'{name}' {worth.tau:.2f}{within}"
