"""The samplers of `ghnq search`, by name, and decisions as distributions of Optuna."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from ghnq.errors import GhnqError, nearest
from ghnq.search.encoding.decisions import Choice, Decision
from ghnq.search.evolution import RegularizedEvolutionSampler

SAMPLERS = ("nsga2", "tpe", "random", "regularized-evolution")
POPULATION = 20
"""Trials of a generation of NSGA-II, and alive in regularized evolution."""
CHANGES = 4.0
"""Decisions that NSGA-II mutates in a child on average: most are of absent blocks or the other family."""


def distributions(decisions: Mapping[str, Decision]) -> dict[str, BaseDistribution]:
    """Returns decisions as Optuna's distributions, by name."""
    return {name: _distribution(decision) for name, decision in decisions.items()}


def _distribution(decision: Decision) -> BaseDistribution:
    if isinstance(decision, Choice):
        return CategoricalDistribution(decision.options)
    return IntDistribution(decision.low, decision.high, step=decision.step)


def make_sampler(name: str, space: dict[str, BaseDistribution], seed: int, processes_before: int = 0) -> BaseSampler:
    """Returns a sampler.

    Args:
        processes_before: Processes that worked on the study: each draws other points, also one that goes on.

    Raises:
        GhnqError: There is no such sampler.
    """
    digest = hashlib.sha256(f"{seed}/{processes_before}".encode()).digest()
    start = int.from_bytes(digest[:4], "big")
    if name == "nsga2":
        return NSGAIISampler(population_size=POPULATION, mutation_prob=min(1.0, CHANGES / len(space)), seed=start)
    if name == "tpe":
        return TPESampler(n_startup_trials=POPULATION, seed=start)
    if name == "random":
        return RandomSampler(seed=start)
    if name == "regularized-evolution":
        return RegularizedEvolutionSampler(space, population_size=POPULATION, mutations=int(CHANGES), seed=start)
    raise GhnqError(f"there is no sampler '{name}'{nearest(name, SAMPLERS)}; there are {', '.join(SAMPLERS)}")
