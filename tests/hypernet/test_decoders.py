"""The decoder's corners, tiling and normalisation against obvious versions; gradients against autograd."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.hypernet.decoders.corner import corner_linear
from ghnq.hypernet.fit import normalise, tile, weight_gain


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), groups=st.integers(1, 4))
def test_corner_linear_is_the_full_layer_cut(seed: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    grid = tuple(int(g) for g in rng.integers(1, 6, size=3))
    corners = [tuple(int(rng.integers(1, g + 1)) for g in grid) for _ in range(groups)]
    weight = torch.randn(math.prod(grid), 5, generator=generator, dtype=torch.double, requires_grad=True)
    bias = torch.randn(math.prod(grid), generator=generator, dtype=torch.double, requires_grad=True)
    inputs = [
        torch.randn(int(rng.integers(1, 4)), 5, generator=generator, dtype=torch.double, requires_grad=True)
        for _ in range(groups)
    ]
    expected = []
    for x, corner in zip(inputs, corners, strict=True):
        full = (x @ weight.t() + bias).view(len(x), *grid)
        expected.append(full[(slice(None), *(slice(0, c) for c in corner))].reshape(len(x), -1))
    actual = corner_linear(inputs, corners, weight, bias, grid)
    directions = [torch.randn(e.shape, generator=generator, dtype=torch.double) for e in expected]
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)
    leaves = [weight, bias, *inputs]
    wanted = torch.autograd.grad(sum((e * d).sum() for e, d in zip(expected, directions, strict=True)), leaves)
    got = torch.autograd.grad(sum((a * d).sum() for a, d in zip(actual, directions, strict=True)), leaves)
    for a, e in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(
    have=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    want=st.lists(st.integers(1, 13), min_size=4, max_size=4),
)
def test_tiling_repeats_and_cuts_every_dimension(have: list[int], want: list[int]) -> None:
    shape = tuple(want[: len(have)])
    source = torch.arange(2 * math.prod(have)).view(2, *have)
    result = tile(source, shape)
    assert result.shape == (2, *shape)
    for position in np.ndindex(*shape):
        origin = tuple(p % h for p, h in zip(position, have, strict=True))
        assert result[(0, *position)] == source[(0, *origin)]
        assert result[(1, *position)] == source[(1, *origin)]


@pytest.mark.parametrize(
    ("shape", "beta"),
    [((8, 4, 3, 3), 2), ((8, 1, 3, 3), 1), ((8, 4, 1, 7), 1), ((8, 4, 7, 1), 2), ((10, 20), 2), ((10, 1), 2)],
)
def test_weights_are_scaled_by_fan_in(shape: tuple[int, ...], beta: int) -> None:
    assert weight_gain(shape) == pytest.approx(math.sqrt(beta / math.prod(shape[1:])), rel=1e-15)


def test_vectors_are_squashed() -> None:
    x = torch.linspace(-50, 50, 101, dtype=torch.double)[None]
    scale = normalise(x, "norm_weight", (101,))
    torch.testing.assert_close(scale, 2 / (1 + torch.exp(-x / 2)))
    for role in ("norm_bias", "bias", "class_bias"):
        torch.testing.assert_close(normalise(x, role, (101,)), torch.tanh(0.2 * x))
