"""The quantizer against numpy (rtol 0), torch, torchao, and autograd."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from ghnq.quant.affine import decode, encode, fake_quantize, integer_range, scale_zero_point
from ghnq.quant.dynamic_ranges import fake_quantize_activation, fake_quantize_weight, weight_qparams
from ghnq.quant.scheme import QuantScheme
from tests.quant import oracle

BITS = st.integers(2, 16)
FLOATS = st.floats(-1e6, 1e6, width=32) | st.floats(-2, 2, width=32)
VALUES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=FLOATS)
MATRICES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=FLOATS)
SCHEMES = {
    (granularity, symmetric): QuantScheme.parse("w8", weight_granularity=granularity, weight_symmetric=symmetric)
    for granularity in ("channel", "tensor")
    for symmetric in (True, False)
}


def same(ours: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=0)


@settings(max_examples=150)
@given(VALUES, BITS)
def test_activations_equal_the_numpy_quantizer(x: np.ndarray, bits: int) -> None:
    same(fake_quantize_activation(torch.from_numpy(x), bits), oracle.fake_quantize(x, bits, symmetric=False))


@settings(max_examples=150)
@given(MATRICES, BITS, st.booleans(), st.sampled_from(["channel", "tensor"]))
def test_weights_equal_the_numpy_quantizer(x: np.ndarray, bits: int, symmetric: bool, granularity: str) -> None:
    expected = (oracle.fake_quantize_rows if granularity == "channel" else oracle.fake_quantize)(x, bits, symmetric)
    same(fake_quantize_weight(torch.from_numpy(x), bits, SCHEMES[granularity, symmetric]), expected)


@settings(max_examples=150)
@given(MATRICES, BITS, st.booleans())
def test_encode_and_decode_agree_with_fake_quantize(x: np.ndarray, bits: int, symmetric: bool) -> None:
    """Also, encoding values that are quantized already gives the same integers."""
    weight, limits = torch.from_numpy(x), integer_range(bits, symmetric)
    scale, zero_point = weight_qparams(weight, bits, SCHEMES["channel", symmetric])
    q = encode(weight, scale, zero_point, *limits)
    for row, got, s, z in zip(x, q, scale.numpy(), zero_point.numpy(), strict=True):
        np.testing.assert_array_equal(got.numpy(), oracle.quantize(row, s, int(z), bits, symmetric))
    assert torch.equal(decode(q, scale, zero_point), fake_quantize(weight, scale, zero_point, *limits))
    assert torch.equal(encode(decode(q, scale, zero_point), scale, zero_point, *limits), q)


@settings(max_examples=150)
@given(VALUES, BITS, st.booleans())
def test_properties_of_a_quantizer(x: np.ndarray, bits: int, symmetric: bool) -> None:
    """Zero is exact, the error is at most half a step in the range, signs are kept, there are at most 2^bits values."""
    values = torch.from_numpy(x).flatten()
    scale, zero_point = scale_zero_point(values.min(), values.max(), bits, symmetric)
    limits = integer_range(bits, symmetric)
    y = fake_quantize(values, scale, zero_point, *limits)
    assert bool(scale > 0)
    assert limits[0] <= zero_point <= limits[1]
    assert zero_point == zero_point.round()
    assert fake_quantize(torch.zeros(3), scale, zero_point, *limits).eq(0).all()
    # Rounding the zero point moves an asymmetric range by up to half a step, so an end may lose one step in all.
    allowed = 0.5 if symmetric else 1.0
    assert bool(((y - values).abs() <= allowed * scale * (1 + 1e-3)).all())
    assert bool((y * values >= 0).all())
    assert y.unique().numel() <= 2**bits - symmetric


def test_ties_go_to_even_and_division_is_true() -> None:
    one, zero = torch.tensor(1.0), torch.tensor(0.0)
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    assert fake_quantize(x, one, zero, -7, 7).tolist() == [-2, -2, 0, 0, 2, 2, 4]
    # Values half-way between steps: multiplying by a rounded 1 / s instead is off by a step at some of them.
    scale = torch.tensor(0.013)
    x = (torch.arange(-100, 100) + 0.5) * scale
    expected = np.clip(np.rint(x.numpy() / scale.numpy()), -127, 127) * scale.numpy()
    same(fake_quantize(x, scale, zero, -127, 127), expected)


@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-42, 3.0, -3.0, 1e30])
@pytest.mark.parametrize("symmetric", [True, False])
def test_constant_tensors_have_a_finite_scale(value: float, symmetric: bool) -> None:
    x = torch.full((4, 5), value)
    scale, zero_point = scale_zero_point(x.min(), x.max(), 8, symmetric)
    y = fake_quantize(x, scale, zero_point, *integer_range(8, symmetric))
    assert bool(scale.isfinite() & (scale > 0))
    torch.testing.assert_close(y, x, rtol=1e-6, atol=1e-37)


def test_nan_remains_nan() -> None:
    y = fake_quantize(torch.tensor([1.0, float("nan"), float("inf")]), torch.tensor(0.5), torch.tensor(2.0), 0, 15)
    assert y[0] == 1
    assert y[1].isnan()
    assert y[2] == 6.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = fake_quantize(x, torch.tensor(0.01), torch.tensor(300.0), 0, 1023)
    assert y.dtype == dtype
    assert torch.equal(y, fake_quantize(x.float(), torch.tensor(0.01), torch.tensor(300.0), 0, 1023).to(dtype))


# Gradients ----------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 10**6), BITS, st.booleans())
def test_gradients_are_zero_where_values_are_clamped(seed: int, bits: int, symmetric: bool) -> None:
    """Against the detach trick: x - x.detach() + y.detach() where x rounds to inside, a constant elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    data, upstream = torch.randn(2, 50, generator=generator)
    low, high = torch.tensor(-0.7), torch.tensor(0.9)  # narrower than the data: some values are clamped
    scale, zero_point = scale_zero_point(low, high, bits, symmetric)
    limits = integer_range(bits, symmetric)
    x = data.clone().requires_grad_()
    y = fake_quantize(x, scale, zero_point, *limits)
    (gradient,) = torch.autograd.grad(y, x, upstream)

    z = data.clone().requires_grad_()
    steps = torch.round(z / scale) + zero_point
    straight = z + (fake_quantize(z, scale, zero_point, *limits) - z).detach()
    inside = (steps >= limits[0]) & (steps <= limits[1])
    (expected,) = torch.autograd.grad(torch.where(inside, straight, straight.detach()), z, upstream)
    assert torch.equal(gradient, expected)
    assert 0 < inside.sum() < 50


def test_no_gradient_flows_through_scales() -> None:
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(fake_quantize_weight(weight, 4, SCHEMES["channel", True]).sum(), weight)
    assert torch.equal(gradient, torch.ones_like(weight))  # min-max clamps nothing
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(fake_quantize_activation(x, 4).sum(), x)
    # Only where the rounded zero point pushes an end value out of the grid may the gradient be cut.
    assert gradient.eq(1).sum() >= x.numel() - 1


def test_vmap_and_function_transforms() -> None:
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([fake_quantize_activation(row, 4) for row in x])
    assert torch.equal(torch.vmap(lambda row: fake_quantize_activation(row, 4))(x), expected)
    gradient = torch.func.grad(lambda v: fake_quantize(v, torch.tensor(0.1), torch.tensor(0.0), -7, 7).sum())(x)
    assert torch.equal(gradient, (torch.round(x / 0.1).abs() <= 7).float())


# Other people's quantizers: they multiply by 1 / s, which is exact for powers of two ----------------


@settings(max_examples=60)
@given(st.integers(0, 10**6), BITS, st.integers(-12, 3), st.booleans())
def test_equals_torch_at_powers_of_two(seed: int, bits: int, exponent: int, symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(300, generator=generator) * 2.0 ** (exponent + bits - 2)
    low, high = integer_range(bits, symmetric)
    scale = torch.tensor(2.0**exponent)
    zero_point = torch.tensor(0 if symmetric else int(torch.randint(low, high + 1, (), generator=generator)))
    ours, theirs = data.clone().requires_grad_(), data.clone().requires_grad_()
    y = fake_quantize(ours, scale, zero_point.float(), low, high)
    expected = torch.fake_quantize_per_tensor_affine(theirs, scale, zero_point.int(), low, high)
    assert torch.equal(y, expected)
    y.sum().backward()
    expected.sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_equals_torch_per_channel_at_powers_of_two() -> None:
    x = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    scale, zero_point = 2.0 ** torch.arange(-6.0, -1.0), torch.tensor([0.0, 3, 7, 15, 8])
    expected = torch.fake_quantize_per_channel_affine(x, scale, zero_point.int(), 0, 0, 15)
    assert torch.equal(fake_quantize(x, scale, zero_point, 0, 15), expected)


@pytest.fixture(scope="module")
def torchao() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its own imports deprecate is not ours
        return pytest.importorskip("torchao.quantization.quant_primitives")


@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_equals_torchao(torchao: Any, bits: int, symmetric: bool, granularity: str) -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(bits)) * torch.logspace(-3, 1, 6).view(
        -1, 1, 1, 1
    )
    low, high = integer_range(bits, symmetric)
    block = (1, 4, 3, 3) if granularity == "channel" else tuple(weight.shape)
    dtype = torch.int8 if symmetric else torch.uint8
    kind = torchao.MappingType.SYMMETRIC if symmetric else torchao.MappingType.ASYMMETRIC
    their_scale, their_zero = torchao.choose_qparams_affine(weight, kind, block, dtype, low, high)
    scale, zero_point = weight_qparams(weight, bits, SCHEMES[granularity, symmetric])
    assert torch.equal(scale.flatten(), their_scale.flatten())
    assert torch.equal(zero_point.flatten(), their_zero.flatten().float())

    their_q = torchao.quantize_affine(weight, block, their_scale, their_zero, dtype, low, high)
    q = encode(weight, scale, zero_point, low, high)
    differ = q != their_q.int()
    # x * (1 / s) and x / s may round apart where x / s is a tie to the last bit, and nowhere else.
    ties = (weight / scale.reshape(-1, 1, 1, 1)).abs().frac().sub(0.5).abs() < 1e-4
    assert not bool((differ & ~ties).any())
    assert int(differ.sum()) <= 1
    their_x = torchao.dequantize_affine(their_q, block, their_scale, their_zero, dtype, low, high)
    assert torch.equal(fake_quantize(weight, scale, zero_point, low, high)[~differ], their_x[~differ])


# Folded weights ----------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 8), st.sampled_from(sorted(SCHEMES)))
def test_a_gain_quantizes_the_folded_weight(seed: int, bits: int, key: tuple[str, bool]) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 2, 3, 3, generator=generator).double()
    gain = torch.randn(4, generator=generator).double()
    assume(float(gain.abs().min()) > 1e-3)
    scheme, factor = SCHEMES[key], gain.reshape(-1, 1, 1, 1)
    unfolded = fake_quantize_weight(weight, bits, scheme, gain)
    folded = fake_quantize_weight(weight * factor, bits, scheme)
    torch.testing.assert_close(unfolded * factor, folded, rtol=1e-12, atol=1e-12)


def test_a_gain_of_zero_stays_finite() -> None:
    weight, gain = torch.randn(2, 3, 3, 3), torch.tensor([0.0, 2.0])
    assert bool(fake_quantize_weight(weight, 4, SCHEMES["tensor", False], gain).isfinite().all())
