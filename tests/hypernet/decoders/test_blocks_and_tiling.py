"""Sliced linear layers, tiling and normalisation against obvious versions; gradients against autograd."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.hypernet.decoders.conv import PositionDecoder
from ghnq.hypernet.decoders.sliced_linear import RowGroup, round_up, sliced_linear
from ghnq.hypernet.parameter_normalisation import bounded_scale, bounded_shift, weight_gain
from ghnq.hypernet.tiling import HUGE_PAGE_BYTES, Identity, Tiling, tile, tile_block

IDENTITIES: tuple[Identity | None, ...] = (None, "dense")


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_a_sliced_linear_layer_equals_slices_of_the_full_one(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    grid = tuple(int(g) for g in rng.integers(1, 6, size=2))
    groups = []
    for _ in range(count):
        sizes = tuple(int(rng.integers(1, g + 1)) for g in grid)
        computed = tuple(round_up(c, g) for c, g in zip(sizes, grid, strict=True))
        start = tuple(int(rng.integers(0, g - c + 1)) for c, g in zip(computed, grid, strict=True))
        groups.append(RowGroup(int(rng.integers(1, 4)), sizes, computed, start if rng.integers(2) else ()))
    if rng.integers(2):
        groups.sort(key=lambda g: g.computed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double, requires_grad=True)

    weight, bias, x = random(math.prod(grid), 5), random(math.prod(grid)), random(sum(g.count for g in groups), 5)
    full = (x @ weight.t() + bias).view(-1, *grid).split([g.count for g in groups])
    starts = [g.start or (0, 0) for g in groups]
    expected = [f[:, a : a + g.sizes[0], b : b + g.sizes[1]] for f, g, (a, b) in zip(full, groups, starts, strict=True)]
    actual = sliced_linear(x, groups, weight, bias, grid)
    directions = [torch.randn(e.shape, generator=generator, dtype=torch.double) for e in expected]
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)
    leaves = [weight, bias, x]
    wanted = torch.autograd.grad(sum((e * d).sum() for e, d in zip(expected, directions, strict=True)), leaves)
    got = torch.autograd.grad(sum((a * d).sum() for a, d in zip(actual, directions, strict=True)), leaves)
    for a, e in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 64])
def test_rounding_up_holds_every_size(most: int) -> None:
    for size in range(1, most + 1):
        assert size <= round_up(size, most) <= most


@settings(max_examples=40)
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


def test_vectors_are_bounded() -> None:
    x = torch.linspace(-50, 50, 101, dtype=torch.double)[None]
    torch.testing.assert_close(bounded_scale(x), 2 / (1 + torch.exp(-x / 2)))
    torch.testing.assert_close(bounded_shift(x), (torch.exp(0.4 * x) - 1) / (torch.exp(0.4 * x) + 1))


@pytest.mark.parametrize(
    "shape",
    [
        (5, 4, 3, 2),
        (3, 2, 3, 2),
        (10, 8, 3, 2),
        (11, 4, 3, 2),
        (5, 9, 3, 2),
        (17, 13, 3, 2),
        (4, 9, 1, 2),
        (13, 3, 5, 4),
    ],
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_filling_repeats_scales_and_lays_out(shape: tuple[int, int, int, int], layout: torch.memory_format) -> None:
    last = layout is torch.channels_last
    block = torch.randn(2, 2, 3, 4, 5, dtype=torch.double).permute(0, 4, 3, 2, 1).detach().requires_grad_()
    result = tile_block(block, Tiling(shape, 0.25, channels_last=last))
    assert torch.equal(result, 0.25 * tile(block, shape))
    assert all(kernel.is_contiguous(memory_format=layout) for kernel in result.unbind(0))
    assert torch.autograd.gradcheck(lambda w: tile_block(w, Tiling(shape, 0.25, channels_last=last)), [block])


def test_filling_what_is_large_enough_for_huge_pages() -> None:
    block = torch.randn(1, 64, 64, 3, 3)
    result = tile_block(block, Tiling((512, 512, 3, 3), 0.5, channels_last=False))
    assert 4 * result.numel() > HUGE_PAGE_BYTES
    assert torch.equal(result, 0.5 * tile(block, (512, 512, 3, 3)))


@pytest.mark.parametrize("most", [5, 8, 11, 16])
def test_a_centred_kernel_is_the_middle_of_the_largest(most: int) -> None:
    """GHN-3: rows from max(0, o - k // 2) to o + ceil(k / 2), o half the grid."""
    torch.manual_seed(0)
    decoder = PositionDecoder(
        hidden=8, widths=(4, 6), max_shape=(3, 5, most, most), centred=True, normalised=False
    ).double()
    h, middle = torch.randn(2, 8, dtype=torch.double), most // 2
    (full,) = decoder([h], [(3, 5, most, most)])
    for height in range(1, most + 1):
        for width in {1, 2, height, most}:
            rows, columns = (slice(max(0, middle - k // 2), middle + math.ceil(k / 2)) for k in (height, width))
            (part,) = decoder([h], [(2, 4, height, width)])
            torch.testing.assert_close(part, full[:, :2, :4, rows, columns], rtol=1e-12, atol=1e-12)


def test_the_largest_centred_kernel_is_the_largest_corner() -> None:
    decoder = PositionDecoder(hidden=8, widths=(4, 6), max_shape=(3, 5, 7, 7), centred=True, normalised=False)
    h = torch.randn(2, 8)
    (centred,) = decoder([h], [(3, 5, 7, 7)])
    decoder.centred = False
    assert torch.equal(decoder([h], [(3, 5, 7, 7)])[0], centred)


def test_a_normalised_decoder_is_the_plain_formula() -> None:
    torch.manual_seed(0)
    decoder = PositionDecoder(hidden=8, widths=(4, 6), max_shape=(3, 5, 3, 3), centred=False, normalised=True).double()
    h = torch.randn(2, 8, dtype=torch.double)

    def active(x: torch.Tensor) -> torch.Tensor:
        x = x.clamp(min=0)
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    positions = active(decoder.positions(h).view(2, 4, 3, 3).permute(0, 2, 3, 1))
    full = decoder.matrix(active(decoder.mix(positions))).view(2, 3, 3, 3, 5).permute(0, 3, 4, 1, 2)
    for shape in [(3, 5, 3, 3), (2, 1, 1, 3), (1, 5, 2, 2)]:
        o, i, height, width = shape
        (part,) = decoder([h], [shape])
        torch.testing.assert_close(part, full[:, :o, :i, :height, :width], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("normalised", [True, False])
def test_how_a_new_decoder_begins(normalised: bool) -> None:
    """Normalised: near variance 1, and hardly anything common to all kernel positions; as published: neither."""
    torch.manual_seed(0)
    decoder = PositionDecoder(
        hidden=32, widths=(128, 256), max_shape=(64, 64, 5, 5), centred=False, normalised=normalised
    )
    with torch.no_grad():
        weights = decoder([torch.randn(8, 32)], [(64, 64, 5, 5)])[0].flatten(3)
    common = (weights.mean(3).var() / weights.var()).item()
    if normalised:
        assert 0.9 < weights.std().item() < 1.1
        assert common < 0.2
    else:
        assert weights.std().item() < 0.2
        assert common > 0.4


@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (4, 5, 3, 3), (9, 7, 1, 1), (6, 6, 1, 7), (6, 6, 7, 1), (12, 8, 5, 5)])
@pytest.mark.parametrize("last", [True, False])
def test_the_identity_of_a_zero_block_passes_channels_on(shape: tuple[int, int, int, int], last: bool) -> None:
    o, i, height, width = shape
    images = torch.randn(2, i, 9, 9, dtype=torch.double)
    block = torch.zeros(1, 4, 3, height, width, dtype=torch.double)
    weight = tile_block(block, Tiling(shape, 0.25, channels_last=last, identity="dense"))[0]
    out = F.conv2d(images, weight, padding=(height // 2, width // 2))
    kept = min(o, i)
    assert torch.equal(out[:, :kept], images[:, :kept])
    assert not out[:, kept:].any()


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_identity_of_a_zero_block_passes_depthwise_channels_on(kernel: int) -> None:
    images = torch.randn(2, 7, 9, 9, dtype=torch.double)
    block = torch.zeros(1, 4, 1, kernel, kernel, dtype=torch.double)
    weight = tile_block(block, Tiling((7, 1, kernel, kernel), 1.0, channels_last=False, identity="depthwise"))[0]
    assert torch.equal(F.conv2d(images, weight, padding=kernel // 2, groups=7), images)


def test_the_identity_is_added_and_has_no_gradient() -> None:
    block = torch.randn(2, 2, 3, 3, 3, dtype=torch.double, requires_grad=True)
    plain, added = (tile_block(block, Tiling((5, 4, 3, 3), 0.5, channels_last=False, identity=i)) for i in IDENTITIES)
    torch.testing.assert_close((added - plain).sum(), torch.tensor(2.0 * 4, dtype=torch.double))
    assert torch.autograd.gradcheck(
        lambda w: tile_block(w, Tiling((5, 4, 3, 3), 0.5, channels_last=True, identity="dense")), [block]
    )
