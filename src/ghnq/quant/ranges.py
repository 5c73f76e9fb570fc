"""Estimates the range (low, high) of values: min-max, percentile or least squared error.

Dimensions: R rows of N values each, one row per output channel or a single one for a whole tensor; F candidates, each a
fraction of the min-max range; B images, C channels, H height, W width; O output channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ghnq.quant.affine import integer_range, scale_zero_point
from ghnq.quant.scheme import Estimator, Granularity

Range = tuple[Tensor, Tensor]
_HALF_PRECISION = (torch.float16, torch.bfloat16)

PERCENTILE = 99.99
"""Percentage of the values below the upper end of a percentile range, and above its lower end."""

MSE_FACTORS = torch.arange(100, 18, -2, dtype=torch.float64).div(100).tolist()
"""Fractions of the min-max range tried by the asymmetric mse estimator, widest first: 1.00, 0.98, ... 0.20."""

BINS = 2**12
"""Bins of the histogram that replaces the values of a tensor with more values, in the asymmetric mse estimator."""

MAX_ELEMENTS = 2**18
"""Elements of an intermediate result of the mse estimators, about: it decides how many candidates are tried at once."""

START_FACTORS = torch.arange(120, 14, -2, dtype=torch.float64).div(100).tolist()
"""Fractions of the min-max scale from which the symmetric mse estimator starts: 1.20, 1.18, ... 0.16."""

FIT_ITERATIONS = 5
"""Iterations of fitting a symmetric scale by least squares from the best start."""

SAMPLE_SIZE = 2**17
"""Values of a tensor or of an observed batch that percentile and mse look at, at most."""


def minmax_range(rows_RN: Tensor, bits: int, symmetric: bool) -> Range:
    """Returns the smallest and the largest value of each row, [R]."""
    low, high = torch.aminmax(rows_RN, dim=1)
    return low, high


def percentile_range(rows_RN: Tensor, bits: int, symmetric: bool) -> Range:
    """Returns the percentiles 100 - PERCENTILE and PERCENTILE of each row, [R]."""
    if rows_RN.dtype in _HALF_PRECISION:  # torch.quantile does not take it
        rows_RN = rows_RN.float()
    fraction = PERCENTILE / 100
    fractions = torch.tensor([1 - fraction, fraction], dtype=rows_RN.dtype, device=rows_RN.device)
    low, high = torch.quantile(rows_RN, fractions, dim=1)
    return low, high


def mse_range(rows_RN: Tensor, bits: int, symmetric: bool) -> Range:
    """Returns the range of least squared quantization error of each row, [R]."""
    if rows_RN.dtype in _HALF_PRECISION:  # too coarse to count values, to compare errors, and for the range itself
        return mse_range(rows_RN.float(), bits, symmetric)
    low_R, high_R = torch.aminmax(rows_RN, dim=1)
    if symmetric:
        return _fit_scale(rows_RN, torch.maximum(-low_R, high_R), bits)
    values, weights = rows_RN, torch.ones_like(low_R)[:, None]
    many = len(rows_RN) == 1 and rows_RN.shape[1] > BINS and bits <= 8
    # On CUDA, bins are summed in no fixed order.
    if many and rows_RN.device.type == "cpu" and bool((high_R - low_R).isfinite()):
        values, weights = (part[None] for part in _histogram(rows_RN[0], low_R, high_R))
    low_FR, high_FR = (end * _column(MSE_FACTORS, end) for end in (low_R, high_R))
    candidates = zip(_split(low_FR, values), _split(high_FR, values), strict=True)
    errors_FR = torch.cat([_squared_errors(values, weights, low, high, bits) for low, high in candidates])
    best = errors_FR.argmin(dim=0, keepdim=True)
    return low_FR.gather(0, best)[0], high_FR.gather(0, best)[0]


def _squared_errors(rows_RN: Tensor, weights: Tensor, low_FR: Tensor, high_FR: Tensor, bits: int) -> Tensor:
    """Returns the weighted mean squared errors [F, R] of quantizing rows with candidate ranges."""
    scale, zero_point = (part[..., None] for part in scale_zero_point(low_FR, high_FR, bits, False))
    smallest, largest = integer_range(bits, False)
    quantized_FRN = torch.div(rows_RN, scale).round_()
    torch.minimum(torch.maximum(quantized_FRN, smallest - zero_point), largest - zero_point, out=quantized_FRN)
    return quantized_FRN.mul_(scale).sub_(rows_RN).square_().mul_(weights).mean(dim=-1)


def _column(factors: list[float], like: Tensor) -> Tensor:
    return torch.tensor(factors, dtype=like.dtype, device=like.device)[:, None]


def _split(candidates_FR: Tensor, rows_RN: Tensor) -> tuple[Tensor, ...]:
    """Splits candidates so that each part, with all values of the rows, has about MAX_ELEMENTS elements."""
    return torch.split(candidates_FR, max(1, MAX_ELEMENTS // max(1, rows_RN.numel())))


def _histogram(values: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the number of the values in each of BINS equal bins of low..high.

    For the error at up to 8 bits these are as good as the values themselves.
    """
    width = ((high - low) / BINS).clamp(min=torch.finfo(values.dtype).tiny)
    bins = torch.sub(values, low).div_(width).to(torch.int64).clamp_(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS)
    sums = torch.bincount(bins, weights=values.double(), minlength=BINS)
    return (sums / counts.clamp(min=1)).to(values.dtype), counts.to(values.dtype)


def _fit_scale(rows_RN: Tensor, magnitude_R: Tensor, bits: int) -> Range:
    """Returns the symmetric range of least squared error of rows with these largest magnitudes, [R].

    For given integers q, the best scale is <x, q> / <q, q>; for this scale, rounding to nearest is no worse than q
    (Lloyd's algorithm). One iteration starts from each of START_FACTORS, because the error has many local minima if a
    row is short; further iterations continue from the best.
    """
    smallest, largest = integer_range(bits, True)
    minmax_R, _ = scale_zero_point(-magnitude_R, magnitude_R, bits, True)
    minmax_R, rows_RN = minmax_R.double(), rows_RN.double()  # errors are compared by their difference from <x, x>

    def iterate(scale_FR: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the fitted scales and their squared errors less <x, x>, both [F, R]."""
        q_FRN = (rows_RN / scale_FR[..., None]).round_().clamp_(smallest, largest)
        inner_FR, square_FR = (rows_RN * q_FRN).sum(dim=-1), q_FRN.square().sum(dim=-1)
        empty = square_FR == 0
        fitted_FR = torch.where(empty, scale_FR, inner_FR / square_FR.clamp(min=1))
        return fitted_FR, torch.where(empty, 0.0, -inner_FR * fitted_FR)

    starts = [iterate(part) for part in _split(minmax_R * _column(START_FACTORS, minmax_R), rows_RN)]
    fitted_FR, errors_FR = (torch.cat(parts) for parts in zip(*starts, strict=True))
    error, index = errors_FR.min(dim=0, keepdim=True)
    # A row that is not finite keeps its min-max scale, so that the result is not finite either.
    best = torch.where(error.isfinite(), fitted_FR.gather(0, index), minmax_R)
    for _ in range(FIT_ITERATIONS):
        fitted, new_error = iterate(best)
        best, error = torch.where(new_error < error, fitted, best), torch.minimum(new_error, error)
    high_R = (best[0] * largest).to(magnitude_R.dtype)
    return -high_R, high_R


_RANGE_FUNCTIONS: dict[Estimator, Callable[[Tensor, int, bool], Range]] = {
    "minmax": minmax_range,
    "percentile": percentile_range,
    "mse": mse_range,
}


@torch.no_grad()
def weight_range(
    weight: Tensor, bits: int, *, granularity: Granularity, symmetric: bool, estimator: Estimator = "minmax"
) -> Range:
    """Returns the range of a weight [O, ...], [O] per channel or [] per tensor.

    Percentile and mse per tensor look at an even sample of SAMPLE_SIZE values if the tensor has more.
    """
    if granularity == "channel":
        return _RANGE_FUNCTIONS[estimator](weight.detach().flatten(1), bits, symmetric)
    values = weight.detach().flatten()
    low, high = _RANGE_FUNCTIONS[estimator](_rows(values, estimator), bits, symmetric)
    return low[0], high[0]


@torch.no_grad()
def activation_range(x: Tensor, bits: int, estimator: Estimator = "minmax") -> Range:
    """Returns the asymmetric range of an activation of any shape, []."""
    if estimator == "minmax":
        low, high = torch.aminmax(in_memory_order(x.detach()))
        return low, high
    low, high = _RANGE_FUNCTIONS[estimator](_rows(x.detach(), estimator), bits, False)
    return low[0], high[0]


class ActivationObserver:
    """Collects the values of an activation over calibration batches and estimates their range.

    minmax keeps the smallest and the largest value of all batches. percentile and mse keep an even, deterministic
    sample of at most SAMPLE_SIZE values of each batch and estimate the range from all of them.
    """

    def __init__(self, bits: int, estimator: Estimator) -> None:
        self._bits, self._estimator = bits, estimator
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Collects the values of one batch of any shape."""
        values = x.detach()
        minmax = self._estimator == "minmax"
        self._rows.append(torch.stack(torch.aminmax(in_memory_order(values))) if minmax else sample_values(values))

    def range(self) -> Range:
        """Returns the range, []; at least one batch must have been observed."""
        low, high = _RANGE_FUNCTIONS[self._estimator](torch.cat(self._rows)[None], self._bits, False)
        return low[0], high[0]


def in_memory_order(x: Tensor) -> Tensor:
    """Returns a view with the values in the order of memory.

    For the extremes of a tensor in the channels-last format, torch would copy it first.
    """
    return x.permute(0, 2, 3, 1) if x.dim() == 4 and not x.is_contiguous() else x


def _rows(values: Tensor, estimator: Estimator) -> Tensor:
    return (values.flatten() if estimator == "minmax" else sample_values(values))[None]


def sample_values(values: Tensor) -> Tensor:
    """Returns evenly spaced values of a tensor of any shape, at most SAMPLE_SIZE, whatever its memory format.

    The stride and the number of values have no common factor: a stride that divides the width of an image would only
    sample some of its columns.
    """
    stride = max(1, -(-values.numel() // SAMPLE_SIZE))
    while math.gcd(stride, values.numel()) > 1:
        stride += 1
    indices = torch.arange(0, values.numel(), stride, device=values.device)
    stored = in_memory_order(values)
    if stored is not values and stored.is_contiguous():  # torch.take would copy it to the contiguous format first
        indices, values = _memory_offsets(indices, *stored.shape[1:]), stored.flatten()
    return torch.take(values, indices)


def _memory_offsets(indices: Tensor, height: int, width: int, channels: int) -> Tensor:
    """Converts flat indices into [B, C, H, W] to offsets into the same values stored as [B, H, W, C].

    Computed in float64, in which the quotients are exact enough for floor; integer division takes ten times as long.
    """
    index, pixels = indices.double(), height * width
    plane = index.div(pixels).floor_()  # of one channel of one image
    image = plane.div(channels).floor_()
    pixel, channel = index.sub_(plane * pixels), plane.sub_(image * channels)
    return image.mul_(pixels).add_(pixel).mul_(channels).add_(channel).to(torch.int64)
