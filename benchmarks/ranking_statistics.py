"""Statistics of the ranking study: Kendall's tau over pairs with bootstrap intervals, and linear fits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ranking_networks import CLASSES

Array = npt.NDArray[np.float64]
BOOTSTRAP = 2000
TOP = 5
RIDGE = 1.0
"""Added to the diagonal, in networks: as if that many networks said that a coefficient is zero."""


def tau(signs: Array, truth: Array) -> float:
    """Kendall's tau-b, from the signs of differences of pairs."""
    lengths = np.sqrt(float((signs**2).sum()) * float((truth**2).sum()))
    return float((signs * truth).sum() / lengths) if lengths else 0.0


def signs_of(values: Array) -> Array:
    """The signs of all differences, [N, N]; values that are close are tied only if equal."""
    return np.sign(values[:, None] - values[None])


class Comparison:
    """A signal against a target over pairs of networks: `all`, `within` budget classes, or those of one class."""

    def __init__(self, values: Array, target: Array, groups: npt.NDArray[np.str_], pairs: str) -> None:
        known = ~np.isnan(values)
        if pairs == "within":
            known &= np.isin(groups, list(CLASSES))
        elif pairs != "all":
            known &= groups == pairs
        self.values, self.target, self.groups = values[known], target[known], groups[known]
        self.same = pairs == "within"
        self._signs, self._truth = signs_of(self.values), signs_of(self.target)

    def __len__(self) -> int:
        return len(self.values)

    def tau(self, chosen: npt.NDArray[np.int64] | None = None) -> float:
        chosen = np.arange(len(self)) if chosen is None else chosen
        grid = np.ix_(chosen, chosen)
        # A network that is drawn twice is no pair with itself.
        mask = chosen[:, None] != chosen[None]
        if self.same:
            mask &= self.groups[chosen][:, None] == self.groups[chosen][None]
        return tau(self._signs[grid][mask], self._truth[grid][mask])

    def interval(self) -> tuple[float, float]:
        """95 %; networks are drawn within their class."""
        generator = np.random.default_rng(0)
        places = [np.flatnonzero(self.groups == group) for group in np.unique(self.groups)]
        taus = [
            self.tau(np.concatenate([generator.choice(each, len(each)) for each in places])) for _ in range(BOOTSTRAP)
        ]
        low, high = np.percentile(taus, [2.5, 97.5])
        return float(low), float(high)

    def lost(self) -> float:
        """Points that the best of the signal's first TOP has less than the best of all; a mean over classes."""
        groups = np.unique(self.groups) if self.same else [None]
        losses = []
        for group in groups:
            here = np.arange(len(self)) if group is None else np.flatnonzero(self.groups == group)
            first = here[np.argsort(-self.values[here], kind="stable")[:TOP]]
            losses.append(self.target[here].max() - self.target[first].max())
        return float(np.mean(losses))


def fit(columns: Array, target: Array) -> tuple[Array, float]:
    """Least squares with a ridge on standardised columns: coefficients of the columns as they are, and the constant."""
    mean, scale = columns.mean(0), columns.std(0)
    scale[scale == 0] = 1
    x = (columns - mean) / scale
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (target - target.mean())) / scale
    return weights, float(target.mean() - mean @ weights)


def left_out(columns: Array, target: Array) -> Array:
    """The fitted value of each network from all others; NaN where a signal is missing."""
    found = np.full(len(target), np.nan)
    known = np.flatnonzero(~np.isnan(columns).any(1))
    for one in known:
        others = known[known != one]
        weights, constant = fit(columns[others], target[others])
        found[one] = columns[one] @ weights + constant
    return found
