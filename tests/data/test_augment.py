"""Vectorised augmentation against one image at a time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ghnq.data.augment import pad_crop, random_flip


def images(count: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randint(1, 256, (count, channels, height, width), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def slow_pad_crop(pixels: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """One pixel at a time: what stands at (y, x) comes from (y + dy - padding, x + dx - padding), or is zero."""
    rows = torch.randint(0, 2 * padding + 1, (len(pixels),), generator=generator).tolist()
    columns = torch.randint(0, 2 * padding + 1, (len(pixels),), generator=generator).tolist()
    result = torch.zeros_like(pixels)
    height, width = pixels.shape[2:]
    for index in range(len(pixels)):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y + rows[index] - padding, x + columns[index] - padding
                if 0 <= from_y < height and 0 <= from_x < width:
                    result[index, :, y, x] = pixels[index, :, from_y, from_x]
    return result


@settings(max_examples=25)
@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(2, 7), st.integers(2, 7), st.integers(1, 3), st.integers(0, 99)
)
def test_pad_crop_shifts_each_image(
    count: int, channels: int, height: int, width: int, padding: int, seed: int
) -> None:
    pixels = images(count, channels, height, width)
    fast = pad_crop(pixels, padding, torch.Generator().manual_seed(seed))
    assert torch.equal(fast, slow_pad_crop(pixels, padding, torch.Generator().manual_seed(seed)))
    assert fast.dtype == torch.uint8


def test_every_shift_occurs_and_images_shift_independently() -> None:
    pixels = torch.zeros(2000, 1, 5, 5, dtype=torch.uint8)
    pixels[:, :, 2, 2] = 1
    shifted = pad_crop(pixels, 1, torch.Generator().manual_seed(3))
    counts = shifted.sum(0)[0, 1:4, 1:4]
    assert counts.sum() == 2000
    assert (counts - 2000 / 9).abs().max() < 5 * (2000 / 9) ** 0.5


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(0, 99))
def test_flip_mirrors_each_image_independently(count: int, seed: int) -> None:
    pixels = images(count, 3, 4, 5)
    fast = random_flip(pixels, torch.Generator().manual_seed(seed))
    coins = torch.randint(0, 2, (count, 1, 1, 1), generator=torch.Generator().manual_seed(seed)).flatten().tolist()
    for index, coin in enumerate(coins):
        mirrored = torch.tensor(pixels[index].numpy()[:, :, ::-1].copy())
        assert torch.equal(fast[index], mirrored if coin else pixels[index])


def test_half_of_the_images_are_mirrored() -> None:
    pixels = torch.tensor([0, 1], dtype=torch.uint8).repeat(2000, 1, 1, 1)
    share = random_flip(pixels, torch.Generator().manual_seed(1))[..., 0].float().mean().item()
    assert abs(share - 0.5) < 5 * 0.5 / 2000**0.5
