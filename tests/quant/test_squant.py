"""SQuant: sums of rounding errors, and the error of each weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ghnq.quant import QuantScheme, quantize, scale_zero_point, squant
from ghnq.quant.affine import integer_range
from tests.quant.nets import CALIBRATION, error, network, quant_layers

HALF = 0.5 + 1e-3  # the sums are of float32 numbers


def grid(weight: Tensor, bits: int, symmetric: bool, channelwise: bool) -> tuple[Tensor, Tensor]:
    rows = weight.flatten(1) if channelwise else weight.flatten()[None]
    low, high = rows.amin(1), rows.amax(1)
    scale, zero_point = scale_zero_point(low, high, bits, symmetric)
    return (scale, zero_point) if channelwise else (scale[0], zero_point[0])


@settings(max_examples=80)
@given(
    st.sampled_from([(5, 3, 3, 3), (4, 1, 5, 5), (6, 8, 1, 1), (7, 33), (1, 1, 1, 1), (3, 4, 7)]),
    st.sampled_from([2, 3, 4, 8]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_errors_cancel_and_no_weight_changes_by_more_than_a_step(
    shape: tuple[int, ...], bits: int, symmetric: bool, channelwise: bool, seed: int
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) ** 3
    scale, zero_point = grid(weight, bits, symmetric, channelwise)
    smallest, largest = integer_range(bits, symmetric)
    rounded = squant(weight, scale, zero_point, smallest, largest)

    def numbers(x: Tensor) -> np.ndarray:
        per_row = np.broadcast_to(scale.numpy().reshape(-1, 1), (shape[0], 1)).astype(np.float64)
        zero = np.broadcast_to(zero_point.numpy().reshape(-1, 1), (shape[0], 1))
        return x.numpy().reshape(shape[0], -1).astype(np.float64) / per_row + zero

    q, exact = np.rint(numbers(rounded)), numbers(weight)
    np.testing.assert_allclose(numbers(rounded), q, atol=1e-3)  # on the grid
    assert q.min() >= smallest
    assert q.max() <= largest
    difference = q - exact
    if symmetric:  # asymmetric ranges round their zero point, so that the outermost values may be clipped
        assert np.abs(difference).max() < 1 + 1e-3  # less than a step from the exact value
        assert np.abs(q - np.rint(exact)).max() <= 1 + 1e-6  # at most a step from the nearest
        assert np.abs(difference.sum(1)).max() <= HALF  # over an output channel
        if len(shape) > 2:
            assert np.abs(difference.reshape(shape[0], shape[1], -1).sum(2)).max() <= 1 + 1e-3  # over a kernel


def test_few_weights_change_and_most_kernels_are_within_half_a_step() -> None:
    weight = torch.randn(16, 12, 3, 3, generator=torch.Generator().manual_seed(3))
    scale, zero_point = grid(weight, 4, True, True)
    exact = (weight / scale.view(-1, 1, 1, 1)).double()
    q = (squant(weight, scale, zero_point, -7, 7) / scale.view(-1, 1, 1, 1)).round()
    nearest = exact.round()
    kernels, before = (q - exact).sum((2, 3)).abs(), (nearest - exact).sum((2, 3)).abs()
    assert before.max() > 1  # there was something to mend
    # One kernel in some may be left above a half for the sake of its channel, never above one.
    assert (kernels <= HALF).double().mean() > 0.8
    assert (q - exact).sum((1, 2, 3)).abs().max() <= HALF
    moved = (q != nearest).double().mean()
    assert 0.01 < moved < 0.25
    # What moved was nearer to its tie than what stayed, within each kernel where something moved by one sign.
    assert (nearest - exact)[q != nearest].abs().mean() > (nearest - exact)[q == nearest].abs().mean()


def test_a_kernel_computed_by_hand() -> None:
    weight = torch.tensor([[[[0.4, 0.3], [0.4, 7.0]]]])  # errors -0.4 -0.3 -0.4 0: sum -1.1, one element goes up
    rounded = squant(weight, torch.ones(1), torch.zeros(1), -7, 7)
    assert rounded.flatten().tolist() == [1.0, 0.0, 0.0, 7.0]  # of two equal errors the first


def test_clamped_weights_are_not_compensated() -> None:
    weight = torch.tensor([[[[20.0, 0.2], [0.1, -0.1]]]])
    assert squant(weight, torch.ones(1), torch.zeros(1), -7, 7).flatten().tolist() == [7.0, 0.0, 0.0, 0.0]


def test_zeros_remain_zeros() -> None:
    weight = torch.zeros(2, 3, 3, 3)
    assert torch.equal(squant(weight, torch.ones(2), torch.zeros(2), -7, 7), weight)


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
def test_the_weights_of_a_quantized_network(protocol: str) -> None:
    net = network(channels=16)
    plain = QuantScheme.parse("w4a8", protocol=protocol)
    rounded = QuantScheme.parse("w4a8", protocol=protocol, steps=("squant",))
    simulated = quantize(net, rounded, calibration=CALIBRATION)
    reference = quantize(net, plain, calibration=CALIBRATION)
    moved = total = 0
    for (_, layer), (_, other) in zip(quant_layers(simulated), quant_layers(reference), strict=True):
        steps = (layer.weight_int - other.weight_int).abs()
        if protocol == "deploy":  # elsewhere the statistics, and so the folded weights, differ
            assert steps.max() <= 1
        moved, total = moved + int((steps > 0).sum()), total + steps.numel()
    assert 0 < moved < 0.3 * total


def test_the_error_decreases_at_four_bits() -> None:
    net = network(channels=16)
    plain, rounded = (
        quantize(net, "w4a8", calibration=CALIBRATION, steps=steps) for steps in ((), ("squant",))
    )  # fmt: skip
    reference = quantize(net, "float32", calibration=CALIBRATION)
    assert error(rounded, reference) < error(plain, reference)
