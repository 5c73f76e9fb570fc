"""Statistics of the ranking study: Kendall's tau over pairs with bootstrap intervals, and linear fits.

Dimensions: N networks, S signals.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ranking_networks import CLASSES

Array = npt.NDArray[np.float64]
BOOTSTRAP = 2000
TOP = 5
RIDGE = 1.0
"""Added to the diagonal, in networks: as if that many networks said that a coefficient is zero."""


def signs_of(values: Array) -> Array:
    """Returns the signs of all differences, [N, N]; NaN where a network has no value."""
    return np.sign(values[:, None] - values[None])


def tau(signs: Array, truth: Array) -> float:
    """Returns Kendall's tau-b, from the signs of differences of pairs."""
    lengths = np.sqrt(float((signs**2).sum()) * float((truth**2).sum()))
    return float((signs * truth).sum() / lengths) if lengths else 0.0


class Comparison:
    """An order against a target over pairs of networks: `all`, `within` budget classes, or those of one class.

    Args:
        signs: Which of two networks is better, [N, N], as `signs_of` gives.
        target: [N].
        groups: The class of each network.
        pairs: As above.
    """

    def __init__(self, signs: Array, target: Array, groups: npt.NDArray[np.str_], pairs: str) -> None:
        known = ~np.isnan(np.diag(signs))
        if pairs == "within":
            known &= np.isin(groups, list(CLASSES))
        elif pairs != "all":
            known &= groups == pairs
        self.target, self.groups, self.same = target[known], groups[known], pairs == "within"
        self._signs, self._truth = signs[np.ix_(known, known)], signs_of(self.target)

    def __len__(self) -> int:
        return len(self.target)

    def tau(self, chosen: npt.NDArray[np.int64] | None = None) -> float:
        """Returns tau, or that of a sample of the networks; one that is drawn twice is tied with itself."""
        chosen = np.arange(len(self)) if chosen is None else chosen
        grid = np.ix_(chosen, chosen)
        counted = np.ones((len(chosen), len(chosen)), bool)
        if self.same:
            counted = self.groups[chosen][:, None] == self.groups[chosen][None]
        return tau(self._signs[grid][counted], self._truth[grid][counted])

    def interval(self) -> tuple[float, float]:
        """Returns the 95 % interval; networks are drawn within their class."""
        generator = np.random.default_rng(0)
        places = [np.flatnonzero(self.groups == group) for group in np.unique(self.groups)]
        taus = [
            self.tau(np.concatenate([generator.choice(each, len(each)) for each in places])) for _ in range(BOOTSTRAP)
        ]
        low, high = np.percentile(taus, [2.5, 97.5])
        return float(low), float(high)

    def lost(self) -> float:
        """Returns how many points the best of the first TOP has less than the best of all; a mean over classes."""
        return float(np.mean([self.target[here].max() - self.target[here[:TOP]].max() for here in self._orders()]))

    def mean_of_first(self, count: int) -> float:
        """Returns the mean target of the first `count`; a mean over classes."""
        return float(np.mean([self.target[here[:count]].mean() for here in self._orders()]))

    def _orders(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yields the networks of each class, or all together, the best by the signal first."""
        for group in np.unique(self.groups) if self.same else [None]:
            here = np.arange(len(self)) if group is None else np.flatnonzero(self.groups == group)
            wins = self._signs[np.ix_(here, here)].sum(1)
            yield here[np.argsort(-wins, kind="stable")]


def fit(columns: Array, target: Array) -> Array:
    """Returns the coefficients [S] of columns [N, S]: least squares with a ridge, columns standardised."""
    centred = columns - columns.mean(0)
    scale = centred.std(0)
    scale[scale == 0] = 1
    x = centred / scale
    weights: Array = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (target - target.mean())) / scale
    return weights


def signs_of_fits(columns: Array, target: Array) -> Array:
    """Returns which of two networks is better by a fit to all others, [N, N]; NaN where a signal is missing.

    Leaving out both is what a user does who ranks new networks. (Leaving out one would not do: without a good network
    the mean of the others is lower, and so is its value.)
    """
    found = np.full((len(target), len(target)), np.nan)
    known = np.flatnonzero(~np.isnan(columns).any(1))
    found[known, known] = 0
    for position, i in enumerate(known):
        for j in known[:position]:
            others = known[(known != i) & (known != j)]
            found[i, j] = np.sign((columns[i] - columns[j]) @ fit(columns[others], target[others]))
            found[j, i] = -found[i, j]
    return found
