"""A linear classifier in closed form: ridge regression on class indicators, then a temperature.

With centred features X [B, F] and centred indicators Y [B, K] of the classes, the weight is

    W = Y^T X (X^T X + s m I)^-1

where m is the mean of the diagonal of X^T X, so that the strength s does not depend on the scale of the features
(Hoerl & Kennard 1970, Ridge Regression: Biased Estimation for Nonorthogonal Problems). Indicators are regressed to
values between 0 and 1; divided by a temperature they are logits (Guo et al. 2017, arXiv 1706.04599, Eq. 9).

Dimensions: B images, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTHS = tuple(10.0**exponent for exponent in range(-6, 3))
DEFAULT_STRENGTH = 0.1
"""Where too few images are there to choose one."""
TEMPERATURES = tuple(10.0 ** (-step / 10) for step in range(31))
DEFAULT_TEMPERATURE = 0.1
HELD_OUT_FRACTION = 0.2
MIN_PER_CLASS = 5
"""With fewer images of a class on average, nothing is held out, and the defaults are taken."""


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """logits = features @ weight.T + bias.

    Attributes:
        weight: float64 [K, F].
        bias: float64 [K].
        strength: Of the regression.
        temperature: That the regressed indicators were divided by.
        held_out_accuracy: Percent, on held-out images, of a classifier solved without them; None where none were.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    temperature: float
    held_out_accuracy: float | None = None


def solve_classifier(features_BF: Tensor, labels_B: Tensor, classes: int) -> LinearClassifier:
    """Returns the classifier of all images; strength and temperature are those that are best on a part held out.

    Args:
        features_BF: Any float type; the last images are held out, so their order must be random.
        labels_B: int64.
        classes: K; a class without images gets the logits of the regression towards 0.
    """
    x_BF = features_BF.double()
    held = int(HELD_OUT_FRACTION * len(x_BF))
    if len(x_BF) < MIN_PER_CLASS * classes:
        problem = _Ridge(x_BF, labels_B, classes)
        return _at_temperature(problem, DEFAULT_STRENGTH, DEFAULT_TEMPERATURE, None)
    part = _Ridge(x_BF[:-held], labels_B[:-held], classes)
    strength, accuracy = _best_strength(part, x_BF[-held:], labels_B[-held:])
    temperature = _best_temperature(part.logits(strength, x_BF[-held:]), labels_B[-held:])
    return _at_temperature(_Ridge(x_BF, labels_B, classes), strength, temperature, accuracy)


class _Ridge:
    """The regression of some images, for any strength: the eigenvectors of X^T X serve them all."""

    def __init__(self, x_BF: Tensor, labels_B: Tensor, classes: int) -> None:
        y_BK = F.one_hot(labels_B, classes).double()
        self.x_mean_F, self.y_mean_K = x_BF.mean(0), y_BK.mean(0)
        x_BF, y_BK = x_BF - self.x_mean_F, y_BK - self.y_mean_K
        gram_FF = x_BF.T @ x_BF
        self.values_F, self.vectors_FF = torch.linalg.eigh(gram_FF)
        # Constant features have no variance at all; then every strength gives the weight 0.
        self.mean_diagonal = gram_FF.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
        self.projected_FK = self.vectors_FF.T @ (x_BF.T @ y_BK)

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """Returns weight [K, F] and bias [K]."""
        shrunk_FK = self.projected_FK / (self.values_F.clamp(min=0) + strength * self.mean_diagonal)[:, None]
        weight_KF = (self.vectors_FF @ shrunk_FK).T
        return weight_KF, self.y_mean_K - weight_KF @ self.x_mean_F

    def logits(self, strength: float, x_BF: Tensor) -> Tensor:
        """Returns the regressed indicators of images, [B, K]."""
        weight_KF, bias_K = self.solve(strength)
        return x_BF @ weight_KF.T + bias_K


def _best_strength(part: _Ridge, x_BF: Tensor, labels_B: Tensor) -> tuple[float, float]:
    """Returns the strength of best accuracy, of equal ones the largest, and that accuracy in percent."""
    found = [
        (100 * float((part.logits(strength, x_BF).argmax(1) == labels_B).double().mean()), strength)
        for strength in STRENGTHS
    ]
    accuracy, strength = max(found)
    return strength, accuracy


def _best_temperature(indicators_BK: Tensor, labels_B: Tensor) -> float:
    """Returns the temperature of least cross-entropy."""
    losses = [float(F.cross_entropy(indicators_BK / temperature, labels_B)) for temperature in TEMPERATURES]
    best: float = TEMPERATURES[losses.index(min(losses))]
    return best


def _at_temperature(problem: _Ridge, strength: float, temperature: float, accuracy: float | None) -> LinearClassifier:
    weight_KF, bias_K = problem.solve(strength)
    return LinearClassifier(weight_KF / temperature, bias_K / temperature, strength, temperature, accuracy)
