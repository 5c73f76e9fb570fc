"""What the order of each signal was measured to be worth, and the fitted combination: data, in `evidence.json`.

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
        p: Its p-value; None where it was not kept.
        within_budget: The same among networks of equal multiply-adds; None where it was not measured.
    """

    tau: float = Field(ge=-1, le=1)
    p: float | None = None
    within_budget: float | None = None


class Fitted(_Value):
    """A linear combination of signals.

    Attributes:
        terms: The coefficient of each signal.
        tau: Of the combination, as `Worth.tau`.
        within_budget: As `Worth.within_budget`.
        note: How it was fitted.
    """

    terms: dict[str, float] = Field(min_length=1)
    tau: float = Field(ge=-1, le=1)
    within_budget: float | None = None
    note: str


class Evidence(_Value):
    """What was measured, on which networks.

    Attributes:
        target: What the signals were compared with.
        networks: How many networks.
        caution: What the comparison does not say.
        signals: By the name of the signal; a signal without an entry was not measured.
        fitted: The combination that `--by fitted` uses.
    """

    target: str
    networks: int
    caution: str
    signals: dict[str, Worth]
    fitted: Fitted

    @property
    def taus(self) -> dict[str, float]:
        """Kendall's tau of every signal that was measured."""
        return {name: each.tau for name, each in self.signals.items()} | {"fitted": self.fitted.tau}

    def worth(self, signal: str) -> Worth | None:
        """Returns what is known of a signal."""
        if signal == "fitted":
            return Worth(tau=self.fitted.tau, within_budget=self.fitted.within_budget)
        return self.signals.get(signal)

    def lines(self, signal: str) -> list[str]:
        """Returns how far the order of a signal can be trusted, in a few sentences."""
        worth = self.worth(signal)
        if worth is None:
            return [f"How well '{signal}' orders networks has not been measured.", self.caution]
        within = "" if worth.within_budget is None else f", within a budget {worth.within_budget:.2f}"
        fitted = f" (it is {_formula(self.fitted)} so far: {self.fitted.note})" if signal == "fitted" else ""
        others = ", ".join(f"'{name}' {each.tau:.2f}" for name, each in self.signals.items() if name != signal)
        return [
            f"Kendall's tau of '{signal}' is {worth.tau:.2f}{within}{fitted}; of {others}. 1 is the right order, 0 is "
            "chance.",
            f"It was compared with the {self.target}.",
            self.caution,
        ]


@cache
def evidence() -> Evidence:
    """Returns the evidence that comes with the package."""
    text = (files("ghnq.search") / "evidence.json").read_text(encoding="utf-8")
    return Evidence.model_validate_json(text)


def _formula(fitted: Fitted) -> str:
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in fitted.terms.items())
