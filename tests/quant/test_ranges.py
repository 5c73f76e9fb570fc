"""Range estimators against brute force, and the observer of batches against all values at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.quant import ranges
from ghnq.quant.affine import fake_quantize, integer_range, scale_zero_point
from ghnq.quant.ranges import ActivationObserver, activation_range, weight_range
from ghnq.quant.scheme import ESTIMATORS
from tests.quant import oracle

WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) ** 3


def squared_error(x: np.ndarray, low: float, high: float, bits: int, symmetric: bool) -> float:
    scale, zero_point = oracle.qparams(np.float32(low), np.float32(high), bits, symmetric)
    y = oracle.dequantize(oracle.quantize(x, scale, zero_point, bits, symmetric), scale, zero_point)
    return float(np.mean((y.astype(np.float64) - x) ** 2))


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_minmax_and_percentile_of_weights(granularity: str) -> None:
    rows = WEIGHT.flatten(1).numpy() if granularity == "channel" else WEIGHT.flatten().numpy()[None]
    low, high = weight_range(WEIGHT, 4, granularity=granularity, symmetric=True)
    np.testing.assert_array_equal(low.numpy().reshape(-1), rows.min(axis=1))
    np.testing.assert_array_equal(high.numpy().reshape(-1), rows.max(axis=1))
    low, high = weight_range(WEIGHT, 4, granularity=granularity, symmetric=True, estimator="percentile")
    np.testing.assert_allclose(low.numpy().reshape(-1), np.percentile(rows, 0.01, axis=1), rtol=1e-4)
    np.testing.assert_allclose(high.numpy().reshape(-1), np.percentile(rows, 99.99, axis=1), rtol=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_the_best_of_its_candidates(bits: int, symmetric: bool) -> None:
    low, high = weight_range(WEIGHT, bits, granularity="channel", symmetric=symmetric, estimator="mse")
    for row, a, b in zip(WEIGHT.flatten(1).numpy(), low, high, strict=True):
        errors = [squared_error(row, row.min() * f, row.max() * f, bits, symmetric) for f in ranges.MSE_FACTORS]
        chosen = squared_error(row, float(a), float(b), bits, symmetric)
        assert chosen <= min(errors) * (1 + 1e-5)
    if bits == 2:  # heavy tails and three values: clipping must pay
        assert bool((high < WEIGHT.flatten(1).max(dim=1).values).any())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("tail", ["normal", "relu", "cauchy", "bimodal", "constant"])
def test_mse_of_many_values_from_a_histogram(bits: int, tail: str) -> None:
    x = torch.randn(100_003, generator=torch.Generator().manual_seed(bits))
    x = {
        "normal": x,
        "relu": x.relu(),
        "cauchy": (x * 1.4).tan().clamp(-500, 500),
        "bimodal": x + 6 * x.sign(),
        "constant": x * 0 - 3,
    }[tail]
    low, high = (float(end) for end in activation_range(x, bits, "mse"))
    a, b, row = float(x.min()), float(x.max()), x.numpy()
    errors = [squared_error(row, a * f, b * f, bits, False) for f in ranges.MSE_FACTORS]
    assert squared_error(row, low, high, bits, False) <= min(errors) * 1.0001


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("atom", [0.7, -0.37])
def test_mse_from_a_histogram_with_one_frequent_value(bits: int, atom: float) -> None:
    """Sums of a quarter of a million equal values, in single precision, are off by more than a bin."""
    x = torch.rand(2**18, generator=torch.Generator().manual_seed(bits))
    x[: 2**18 * 98 // 100] = atom
    low, high = (float(end) for end in ranges.mse_range(x[None], bits, False))
    a, b, row = float(x.min()), float(x.max()), x.numpy()
    errors = [squared_error(row, a * f, b * f, bits, False) for f in ranges.MSE_FACTORS]
    assert squared_error(row, low, high, bits, False) <= min(errors) * 1.001


@pytest.mark.parametrize("estimator", ["percentile", "mse"])
def test_ranges_do_not_depend_on_the_memory_format(estimator: str) -> None:
    x = torch.randn(20, 40, 16, 16, generator=torch.Generator().manual_seed(0)).square()
    assert x.numel() > ranges.SAMPLE_SIZE
    stored_otherwise = x.contiguous(memory_format=torch.channels_last)
    assert activation_range(x, 8, estimator) == activation_range(stored_otherwise, 8, estimator)
    observers = [ActivationObserver(8, estimator) for _ in range(2)]
    for observer, values in zip(observers, (x, stored_otherwise), strict=True):
        observer.observe(values)
    assert observers[0].range() == observers[1].range()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_of_half_precision_is_that_of_the_same_values_in_float32(dtype: torch.dtype, symmetric: bool) -> None:
    x = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0)).relu().to(dtype)
    low, high = ranges.mse_range(x, 2, symmetric)
    expected = ranges.mse_range(x.float(), 2, symmetric)
    assert (low.dtype, high.dtype) == (torch.float32, torch.float32)
    assert (low, high) == expected
    assert float(high) < 0.9 * float(x.max())


@pytest.mark.parametrize("wrong", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_of_rows_that_are_not_finite(wrong: float, symmetric: bool) -> None:
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    rows[1, 7] = wrong
    low, high = ranges.mse_range(rows, 4, symmetric)
    scale, zero_point = scale_zero_point(low, high, 4, symmetric)
    on_grid = fake_quantize(rows, scale, zero_point, *integer_range(4, symmetric))
    assert on_grid.isfinite().all(1).tolist() == [True, False, True]


@settings(max_examples=40)
@given(st.sampled_from(ESTIMATORS), st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 1000))
def test_streaming_equals_all_at_once(estimator: str, sizes: list[int], seed: int) -> None:
    x = torch.randn(sum(sizes), 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    observer = ActivationObserver(4, estimator)
    for batch in x.split(sizes):
        observer.observe(batch)
    low, high = observer.range()
    if estimator == "minmax":
        assert (low, high) == (x.min(), x.max())
    expected = activation_range(x, 4, estimator)
    if estimator != "mse":
        torch.testing.assert_close((low, high), expected)
    else:  # sums in another order may choose another candidate of the same error
        errors = [squared_error(x.numpy(), float(a), float(b), 4, False) for a, b in ((low, high), expected)]
        assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_minmax_is_over_all_batches() -> None:
    observer = ActivationObserver(8, "minmax")
    observer.observe(torch.tensor([1.0, 100.0]))
    observer.observe(torch.tensor([-5.0, 2.0]))
    assert [value.item() for value in observer.range()] == [-5.0, 100.0]


def test_samples_are_even_and_from_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stride that divides the width of the image would sample one column only."""
    monkeypatch.setattr(ranges, "SAMPLE_SIZE", 1000)
    x = torch.arange(16.0).expand(50, 10, 16, 16)  # every value tells its column; 128,000 of them
    sample = ranges.sample_values(x.flatten())
    assert 300 < sample.numel() <= 1000
    counts = sample.to(torch.int64).bincount(minlength=16)
    assert counts.min() > 0.9 * sample.numel() / 16
    low, high = activation_range(torch.linspace(-1, 3, 10**5), 8, "percentile")
    torch.testing.assert_close((low, high), (torch.tensor(-1.0), torch.tensor(3.0)), rtol=0, atol=1e-2)


@settings(max_examples=60)
@given(st.tuples(*[st.integers(1, 12)] * 4), st.integers(5, 400))
def test_samples_do_not_depend_on_the_memory_format(shape: tuple[int, ...], most: int) -> None:
    x = torch.randn(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "SAMPLE_SIZE", most)
        expected = ranges.sample_values(x.flatten())
        assert torch.equal(ranges.sample_values(x.contiguous(memory_format=torch.channels_last)), expected)
        assert torch.equal(ranges.sample_values(x), expected)


def test_percentile_excludes_outliers() -> None:
    x = torch.cat([torch.rand(50_000, generator=torch.Generator().manual_seed(0)), torch.tensor([1000.0])])
    assert activation_range(x, 8, "percentile")[1] < 1.01
    assert activation_range(x, 8, "minmax")[1] == 1000
