"""From values to a range (low, high): min-max, percentile, least squared error; streaming for activations.

Estimators see `rows` [R, n]: one row per output channel, or a single row for a whole tensor.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ghnq.quant.affine import integer_range, scale_zero_point
from ghnq.quant.scheme import Estimator, Granularity

Range = tuple[Tensor, Tensor]

PERCENTILE = 99.99
"""Share of the values, in percent, below the upper end of a percentile range (and above its lower end)."""

MSE_FACTORS = torch.arange(100, 18, -2, dtype=torch.float64).div(100).tolist()
"""Fractions of the min-max range tried by the asymmetric mse estimator, widest first: 1.00, 0.98, ... 0.20."""

BINS = 2**12
"""Bins that stand for a tensor's values where it has more, in the asymmetric mse estimator."""

AT_ONCE = 2**18
"""Results of one operation of the mse estimators to aim at: more factors at once where there are few values."""

FIT_FACTORS = torch.arange(120, 14, -2, dtype=torch.float64).div(100).tolist()
"""Fractions of the min-max scale from which the symmetric mse estimator starts: 1.20, 1.18, ... 0.16."""

FITS = 5
"""Turns of fitting a symmetric scale by least squares after the best start."""

SAMPLE = 2**17
"""Values kept per observed batch (and most values sorted or searched per tensor) by percentile and mse."""


def _minmax(rows: Tensor, bits: int, symmetric: bool) -> Range:
    low, high = torch.aminmax(rows, dim=1)
    return low, high


def _percentile(rows: Tensor, bits: int, symmetric: bool) -> Range:
    share = PERCENTILE / 100
    ends = torch.tensor([1 - share, share], dtype=rows.dtype, device=rows.device)
    low, high = torch.quantile(rows, ends, dim=1)
    return low, high


def _mse(rows: Tensor, bits: int, symmetric: bool) -> Range:
    if rows.dtype in (torch.float16, torch.bfloat16):  # neither can count values, nor tell errors apart
        low, high = _mse(rows.float(), bits, symmetric)
        return low.to(rows.dtype), high.to(rows.dtype)
    low, high = torch.aminmax(rows, dim=1)
    if symmetric:
        return _fit_scale(rows, torch.maximum(-low, high), bits)
    values, weights = rows, torch.ones_like(low)[:, None]
    many = len(rows) == 1 and rows.shape[1] > BINS and bits <= 8
    # On CUDA bins are summed in no certain order.
    if many and rows.device.type == "cpu" and bool((high - low).isfinite()):
        values, weights = (part[None] for part in _histogram(rows[0], low, high))
    lows, highs = (end * _column(MSE_FACTORS, end) for end in (low, high))  # [F, R]
    pairs = zip(_parts(lows, values), _parts(highs, values), strict=True)
    best = torch.cat([_errors(values, weights, *pair, bits) for pair in pairs]).argmin(dim=0, keepdim=True)
    return lows.gather(0, best)[0], highs.gather(0, best)[0]


def _errors(rows: Tensor, weights: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Weighted squared errors [F, R] of rows [R, n] on the grids of ranges low..high [F, R]."""
    scale, zero_point = (part[..., None] for part in scale_zero_point(low, high, bits, False))
    smallest, largest = integer_range(bits, False)
    on_grid = torch.div(rows, scale).round_()
    torch.minimum(torch.maximum(on_grid, smallest - zero_point), largest - zero_point, out=on_grid)
    return on_grid.mul_(scale).sub_(rows).square_().mul_(weights).mean(dim=-1)


def _column(factors: list[float], like: Tensor) -> Tensor:
    return torch.tensor(factors, dtype=like.dtype, device=like.device)[:, None]


def _parts(tried: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    """What is tried [F, R], in parts that are quick."""
    return torch.split(tried, max(1, AT_ONCE // max(1, rows.numel())))


def _histogram(values: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Mean value and number of values of BINS equal bins of low..high: as good as all values, at up to 8 bits."""
    width = ((high - low) / BINS).clamp(min=torch.finfo(values.dtype).tiny)
    bins = torch.sub(values, low).div_(width).to(torch.int64).clamp_(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS)
    sums = torch.bincount(bins, weights=values.double(), minlength=BINS)
    return (sums / counts.clamp(min=1)).to(values.dtype), counts.to(values.dtype)


def _fit_scale(rows: Tensor, largest: Tensor, bits: int) -> Range:
    """Symmetric range of least squared error of rows [R, n] with these largest magnitudes [R].

    For integers q the best scale is <x, q> / <q, q>; with that scale the nearest integers are no worse than before
    (Lloyd's alternation). One such turn from every one of FIT_FACTORS, because the error has many valleys where a row
    is short, then more of them from the best.
    """
    smallest, steps = integer_range(bits, True)
    widest, _ = scale_zero_point(-largest, largest, bits, True)
    widest, rows = widest.double(), rows.double()  # errors are compared by their difference from <x, x>

    def turn(scale: Tensor) -> tuple[Tensor, Tensor]:
        """The refitted scales [F, R] and their squared errors [F, R], up to the constant <x, x>."""
        q = (rows / scale[..., None]).round_().clamp_(smallest, steps)
        inner, square = (rows * q).sum(dim=-1), q.square().sum(dim=-1)
        empty = square == 0
        fitted = torch.where(empty, scale, inner / square.clamp(min=1))
        return fitted, torch.where(empty, 0.0, -inner * fitted)

    turns = [turn(part) for part in _parts(widest * _column(FIT_FACTORS, widest), rows)]
    fits, errors = (torch.cat(parts) for parts in zip(*turns, strict=True))
    error, chosen = errors.min(dim=0, keepdim=True)
    # A row that is not finite keeps its scale, so that it is noticed.
    best = torch.where(error.isfinite(), fits.gather(0, chosen), widest)
    for _ in range(FITS):
        fitted, new = turn(best)
        best, error = torch.where(new < error, fitted, best), torch.minimum(new, error)
    high = (best[0] * steps).to(largest.dtype)
    return -high, high


ESTIMATE: dict[Estimator, Callable[[Tensor, int, bool], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
}


@torch.no_grad()
def weight_range(
    weight: Tensor, bits: int, *, granularity: Granularity, symmetric: bool, estimator: Estimator = "minmax"
) -> Range:
    """Range of a weight [O, ...]: (low, high), both [O] per channel or [] per tensor.

    Percentile and mse per tensor look at an even sample of SAMPLE values where the tensor has more.
    """
    if granularity == "channel":
        return ESTIMATE[estimator](weight.detach().flatten(1), bits, symmetric)
    values = weight.detach().flatten()
    low, high = ESTIMATE[estimator](_rows(values, estimator), bits, symmetric)
    return low[0], high[0]


@torch.no_grad()
def activation_range(x: Tensor, bits: int, estimator: Estimator = "minmax") -> Range:
    """Range of one activation tensor of any shape, asymmetric: (low, high), both []."""
    if estimator == "minmax":
        low, high = torch.aminmax(as_stored(x.detach()))
        return low, high
    low, high = ESTIMATE[estimator](_rows(x.detach(), estimator), bits, False)
    return low[0], high[0]


class ActivationObserver:
    """Collects one tensor's values over calibration batches and then gives their range.

    minmax keeps the smallest and largest value over all batches, exactly. percentile and mse keep an even,
    deterministic sample of at most SAMPLE values of each batch and estimate from all of them at the end.
    """

    def __init__(self, bits: int, estimator: Estimator) -> None:
        self._bits, self._estimator = bits, estimator
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Takes in one batch, any shape."""
        seen = x.detach()
        minmax = self._estimator == "minmax"
        self._rows.append(torch.stack(torch.aminmax(as_stored(seen))) if minmax else _sample(seen))

    @property
    def seen(self) -> bool:
        """True once a batch came in."""
        return bool(self._rows)

    def range(self) -> Range:
        """(low, high), both []; needs at least one batch."""
        low, high = ESTIMATE[self._estimator](torch.cat(self._rows)[None], self._bits, False)
        return low[0], high[0]


def as_stored(x: Tensor) -> Tensor:
    """The values in the order of memory, as a view: torch copies what is stored channels last to find its extremes."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 and not x.is_contiguous() else x


def _rows(values: Tensor, estimator: Estimator) -> Tensor:
    return (values.flatten() if estimator == "minmax" else _sample(values))[None]


def _sample(values: Tensor) -> Tensor:
    """At most SAMPLE of the values of a tensor of any shape, the same in whatever order they are stored.

    The stride has no factor in common with their number: one that divides the width of an image would see a few of
    its columns only.
    """
    stride = max(1, -(-values.numel() // SAMPLE))
    while math.gcd(stride, values.numel()) > 1:
        stride += 1
    places = torch.arange(0, values.numel(), stride, device=values.device)
    stored = as_stored(values)
    if stored is not values and stored.is_contiguous():  # torch.take would first copy all of it into the other order
        places, values = _places_in_memory(places, *stored.shape[1:]), stored.flatten()
    return torch.take(values, places)


def _places_in_memory(places: Tensor, height: int, width: int, channels: int) -> Tensor:
    """Where values of [B, C, H, W], counted in that order, lie in memory as [B, H, W, C].

    In float64, where quotients of such integers are exact enough to be floored: integers take ten times as long.
    """
    counted, pixels = places.double(), height * width
    row = counted.div(pixels).floor_()  # of an image's channel
    image = row.div(channels).floor_()
    pixel, channel = counted.sub_(row * pixels), row.sub_(image * channels)
    return image.mul_(pixels).add_(pixel).mul_(channels).add_(channel).to(torch.int64)
