"""Linear classifiers in closed form: ridge regression of one-hot targets on features (Hoerl & Kennard 1970).

With centred features X [N, D] and centred one-hot targets Y [N, K] the weight is the minimum of
||X W^T - Y||^2 + s ||W||^2, in float64 by the normal equations (X^T X + s I) W^T = X^T Y, or by the dual ones
W^T = X^T (X X^T + s I)^-1 Y where there are fewer images than features. The bias, which is not penalised, follows from
the means. Strengths are given relative to the mean variance of the features times N, so that one grid suits features
of every scale.

Logits of a regression lie between 0 and 1, far too close to each other for a cross-entropy. They are divided by the
temperature (Guo et al. 2017, arXiv 1706.04599, section 4.2) that makes the cross-entropy of images least that were not
used to solve; regression and temperature are one linear layer.

Dimensions: N images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The strengths that are tried."""

FOLDS = 5
_ONE_FOLD_FROM = 2000  # images: one fifth of so many says enough
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.01, 1.0
_VALUES = 1 << 26  # of the features, at most: half a gigabyte in float64
_LEAST_VARIANCE = 1e-30  # of constant features, whose weight is 0 at every strength
_SEED = 5081


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """logits = features @ weight.T + bias.

    Attributes:
        weight: float64 [K, D].
        bias: float64 [K]; 0 if none was asked for.
        strength: Of the regression, one of `STRENGTHS`.
        temperature: That the regressed indicators were divided by.
        held_out_accuracy: Percent, on images held out to choose both, of classifiers solved without them.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    temperature: float
    held_out_accuracy: float


def solve_classifier(features_ND: Tensor, labels_N: Tensor, classes: int, *, bias: bool = True) -> LinearClassifier:
    """Returns the classifier of all images, with the strength and the temperature that suit held-out images best.

    A fifth of the images is held out, of fewer than 2,000 images each fifth in turn. Of equally accurate strengths the
    greatest is taken. Of very many features, fewer images are used, as many as half a gigabyte holds.

    Args:
        features_ND: Finite values, at least two images.
        labels_N: int64.
        classes: At least the largest label plus 1; the targets of a class without an image are 0.
        bias: Whether the classifier has one. Without, features are not centred.
    """
    images = max(_VALUES // features_ND.shape[1], 2)
    features_ND, labels_N = features_ND[:images], labels_N[:images]
    features = features_ND.double()
    targets = torch.nn.functional.one_hot(labels_N, classes).double()
    if not bias:  # A constant added to all logits changes nothing, so that targets may have mean 0.
        targets = targets - 1 / classes
    labels, predicted = _held_out_logits(features, targets, labels_N, bias=bias)
    correct = (predicted.argmax(2) == labels).double().mean(1)
    best = max(range(len(STRENGTHS)), key=lambda index: (float(correct[index]), STRENGTHS[index]))
    temperature = best_temperature(predicted[best], labels)
    weight, offset = solve_ridge(features, targets, STRENGTHS[best : best + 1], bias=bias)[0]
    return LinearClassifier(
        weight=weight / temperature,
        bias=offset / temperature,
        strength=STRENGTHS[best],
        temperature=temperature,
        held_out_accuracy=100 * float(correct[best]),
    )


def solve_ridge(
    features_ND: Tensor, targets_NK: Tensor, strengths: tuple[float, ...], *, bias: bool = True
) -> list[tuple[Tensor, Tensor]]:
    """Returns the weight [K, D] and the bias [K] for each strength; all tensors are float64."""
    (images, size), classes = features_ND.shape, targets_NK.shape[1]
    x_mean = features_ND.mean(0) if bias else features_ND.new_zeros(size)
    y_mean = targets_NK.mean(0) if bias else targets_NK.new_zeros(classes)
    x, y = features_ND - x_mean, targets_NK - y_mean
    unit = max(float(x.square().sum()) / size, _LEAST_VARIANCE)
    dual = images < size
    gram = x @ x.T if dual else x.T @ x
    right = y if dual else x.T @ y
    solutions = []
    for strength in strengths:
        regular = gram.clone()
        regular.diagonal().add_(strength * unit)
        solved = torch.cholesky_solve(right, torch.linalg.cholesky(regular))
        weight = (x.T @ solved if dual else solved).T.contiguous()
        solutions.append((weight, y_mean - weight @ x_mean))
    return solutions


def best_temperature(logits_NK: Tensor, labels_N: Tensor) -> float:
    """Returns the temperature, from 0.01 to 1, with which the mean cross-entropy of the logits is least.

    The cross-entropy is convex in 1 / temperature, so that bisection of its derivative finds it.
    """
    chosen = logits_NK.gather(1, labels_N[:, None]).mean()

    def slope(factor: float) -> float:
        probabilities = (factor * logits_NK).softmax(1)
        return float((probabilities * logits_NK).sum(1).mean() - chosen)

    low, high = 1 / _MAX_TEMPERATURE, 1 / _MIN_TEMPERATURE
    if slope(low) >= 0:
        return _MAX_TEMPERATURE
    if slope(high) <= 0:
        return _MIN_TEMPERATURE
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def _held_out_logits(features: Tensor, targets: Tensor, labels: Tensor, *, bias: bool) -> tuple[Tensor, Tensor]:
    """Returns labels [N] of held-out images, and their logits [strengths, N, K] by classifiers of the others."""
    of_folds, found = [], []
    for fitted, held_out in _folds(len(labels)):
        solutions = solve_ridge(features[fitted], targets[fitted], STRENGTHS, bias=bias)
        found.append(torch.stack([features[held_out] @ weight.T + offset for weight, offset in solutions]))
        of_folds.append(labels[held_out])
    return torch.cat(of_folds), torch.cat(found, 1)


def _folds(images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields positions of the images that are fitted and of those that are held out; always the same."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(_SEED))
    folds = min(FOLDS, images)
    for fold in range(1 if images >= _ONE_FOLD_FROM else folds):
        inside = torch.zeros(images, dtype=torch.bool)
        inside[fold::folds] = True
        yield order[~inside], order[inside]
