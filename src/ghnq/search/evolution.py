"""Regularized evolution (Real et al. 2019, arXiv 1802.01548) as a sampler of Optuna, for one or many objectives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class RegularizedEvolutionSampler(BaseSampler):
    """Mutates the best of a few random members of the last `population_size` trials; older trials die.

    With several objectives the best of the few are those that no other one dominates (Pareto), and one of them is
    drawn. A trial that violates a constraint is worse than one that violates none; of two that do, that with the larger
    sum is worse (Deb et al. 2002, as in Optuna's NSGA-II).

    Args:
        search_space: The distributions of all parameters; categorical ones and integer ranges.
        population_size: Trials that are alive; that many random ones come first.
        tournament_size: Trials that are compared for each child.
        mutations: Parameters that are drawn anew in each child.
        seed: Of all draws; with several processes each one needs its own.
    """

    def __init__(
        self,
        search_space: dict[str, BaseDistribution],
        *,
        population_size: int = 50,
        tournament_size: int = 10,
        mutations: int = 3,
        seed: int | None = None,
    ) -> None:
        self.search_space = search_space
        self.population_size, self.tournament_size, self.mutations = population_size, tournament_size, mutations
        self._random = random.Random(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the whole space: a child is sampled at once."""
        return self.search_space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a random point, or a child of the winner of a tournament."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < self.population_size:
            return {name: self._draw(distribution) for name, distribution in search_space.items()}
        alive = done[-self.population_size :]
        tournament = self._random.sample(alive, min(self.tournament_size, len(alive)))
        best = [one for one in tournament if not any(_dominates(other, one, study.directions) for other in tournament)]
        child = dict(self._random.choice(best).params)
        for name in self._random.sample(sorted(search_space), self.mutations):
            child[name] = self._other(search_space[name], child[name])
        return child

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns a random value of a parameter that is not in the space."""
        return self._draw(param_distribution)

    def reseed_rng(self) -> None:
        """Starts another sequence of draws, as Optuna asks of samplers in parallel processes."""
        self._random = random.Random()

    def _other(self, distribution: BaseDistribution, value: Any) -> Any:
        """Draws a value that is not the one there is, if there is another."""
        while not distribution.single():
            drawn = self._draw(distribution)
            if drawn != value:
                return drawn
        return value

    def _draw(self, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return self._random.choice(distribution.choices)
        if isinstance(distribution, IntDistribution):
            return self._random.randrange(distribution.low, distribution.high + 1, distribution.step)
        raise NotImplementedError(f"no draw from {type(distribution).__name__}")


def _dominates(one: FrozenTrial, other: FrozenTrial, directions: Sequence[StudyDirection]) -> bool:
    violations = [sum(max(0.0, amount) for amount in trial.constraints.values()) for trial in (one, other)]
    if violations[0] != violations[1]:
        return violations[0] < violations[1]
    signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in directions]
    ours, theirs = ([sign * value for sign, value in zip(signs, t.values, strict=True)] for t in (one, other))
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))
