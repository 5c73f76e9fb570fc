"""The loop of a search: ask a sampler for architectures, evaluate those that are allowed and new, tell the study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import optuna

from ghnq.errors import GhnqError
from ghnq.search.encoding import convnets
from ghnq.search.encoding.convnets_bounds import outside
from ghnq.search.limits import OPTIONS, Limits
from ghnq.search.samplers import distributions
from ghnq.search.shared_study import SharedStudy
from ghnq.search.sizes import Sizes
from ghnq.search.study import SIZES
from ghnq.spaces.convnets.specs import Spec

EvaluateMany = Callable[[Sequence[Spec]], Iterable[float]]
"""Accuracies in percent of architectures, in their order."""

SPEC, HASH, EVALUATED = "spec", "structure_hash", "evaluated"
"""Attributes of a trial: the architecture as JSON, its hash, and whether this trial evaluated it."""
_ANY_SIZES = Sizes(0, 0, 0, 0)
PATIENCE = 1000
"""Proposals in a row of which none is allowed and new, until a search ends."""


@dataclass(frozen=True)
class Problem:
    """What is searched for.

    Attributes:
        objectives: Names of `study.OBJECTIVES`.
        sizes: Of an architecture, at the scheme.
        accuracies: Of many architectures, at the scheme.
        limits: The budget of the device.
    """

    objectives: tuple[str, ...]
    sizes: Callable[[Spec], Sizes]
    accuracies: EvaluateMany
    limits: Limits

    def values(self, accuracy: float, sizes: Sizes) -> list[float]:
        """Returns the values of the objectives."""
        known = {"accuracy": accuracy, **{name: getattr(sizes, field) for name, field in SIZES.items()}}
        return [float(known[name]) for name in self.objectives]

    def excess(self, sizes: Sizes) -> dict[str, float]:
        """Returns by what share each limit is exceeded; 0 where it is not."""
        found = sizes.document()
        return {OPTIONS[name]: max(0.0, (found[name] or 0) / limit - 1) for name, limit in self.limits.set().items()}


@dataclass(frozen=True)
class _Proposal:
    """An architecture that is allowed and that no trial has evaluated."""

    trial: optuna.Trial
    spec: Spec
    sizes: Sizes


class Search:
    """Trials of one process; other processes may add theirs to the same study.

    Args:
        study: With the objectives of the problem.
        batch: Architectures that are evaluated at once, without knowing of each other.
        patience: See PATIENCE.
    """

    def __init__(self, study: SharedStudy, problem: Problem, *, batch: int = 1, patience: int = PATIENCE) -> None:
        self.study, self.problem, self.batch, self.patience = study, problem, batch, patience
        self._space = distributions(convnets.DECISIONS)
        self.rejected: Counter[str] = Counter()
        """How many proposals were outside of what bound."""

    def run(self, trials: int, progress: Callable[[int], None] = lambda done: None) -> None:
        """Goes on until the study has evaluated so many architectures.

        Args:
            progress: Called with the number of evaluated architectures.

        Raises:
            GhnqError: Of many proposals none is allowed; the message says what excludes them.
        """
        done = evaluated(self.study)
        progress(done)
        while done < trials:
            self._evaluate(self._collect(min(self.batch, trials - done)))
            done = evaluated(self.study)
            progress(done)

    def _collect(self, wanted: int) -> list[_Proposal]:
        """Asks until so many different architectures are allowed and new."""
        found: dict[str, _Proposal] = {}
        in_vain = 0
        while len(found) < wanted:
            proposal = self._propose()
            if proposal is not None and proposal.spec.structure_hash not in found:
                found[proposal.spec.structure_hash] = proposal
                in_vain = 0
                continue
            if proposal is not None:
                self.study.drop(proposal.trial)
            in_vain += 1
            if in_vain == self.patience:
                raise GhnqError(self._in_vain())
        return list(found.values())

    def _in_vain(self) -> str:
        limits = [name for name in self.rejected if name in OPTIONS.values()]
        taken = ", ".join(f"{name} excludes {self.rejected[name]:,}" for name in limits) or "all others are known"
        return (
            f"the last {self.patience:,} proposed architectures are known or not allowed ({taken}); raise the limits, "
            "or ask for fewer trials"
        )

    def _propose(self) -> _Proposal | None:
        """Asks for one architecture; tells the study at once if it is not allowed or its values are known."""
        trial = self.study.ask(self._space)
        spec = convnets.decode(trial.params)
        trial.set_user_attr(SPEC, spec.to_json())
        trial.set_user_attr(HASH, spec.structure_hash)
        excess = outside(spec)
        # Only members of the space are traced, which takes longer than everything else of a proposal.
        sizes = _ANY_SIZES if any(excess.values()) else self.problem.sizes(spec)
        excess |= self.problem.excess(sizes)
        for name, amount in excess.items():
            trial.set_constraint(name, amount)
        if any(excess.values()):
            self.rejected.update(name for name, amount in excess.items() if amount)
            # Samplers compare what is not allowed by its excess alone.
            self.study.tell(trial, self.problem.values(0.0, sizes))
            return None
        known = self._known(spec.structure_hash)
        if known is not None:
            self.study.tell(trial, known)
            return None
        return _Proposal(trial, spec, sizes)

    def _known(self, structure_hash: str) -> list[float] | None:
        for trial in self.study.trials():
            if trial.user_attrs.get(HASH) == structure_hash and trial.user_attrs.get(EVALUATED):
                return list(trial.values)
        return None

    def _evaluate(self, proposals: list[_Proposal]) -> None:
        accuracies = self.problem.accuracies([proposal.spec for proposal in proposals])
        for proposal, accuracy in zip(proposals, accuracies, strict=True):
            proposal.trial.set_user_attr(EVALUATED, True)
            self.study.tell(proposal.trial, self.problem.values(accuracy, proposal.sizes))


def evaluated(study: SharedStudy) -> int:
    """Returns how many architectures the study has evaluated, those of other processes included."""
    return sum(bool(trial.user_attrs.get(EVALUATED)) for trial in study.trials())
