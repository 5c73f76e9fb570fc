"""Networks with transposed convolutions, resizing, pixel shuffles, padding by values of the image, and other norms."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from tests.quant.nets import randomise


class ToSize(nn.Module):
    """Interpolation to a size."""

    def __init__(self, size: tuple[int, int], **options: object) -> None:
        super().__init__()
        self.size, self.options = size, options

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=self.size, **self.options)  # type: ignore[arg-type]


def _conv(inputs: int, outputs: int, **options: object) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, **options), nn.ReLU()]  # type: ignore[arg-type]


def _up(outputs: int, kernel: int, **options: object) -> list[nn.Module]:
    up = nn.ConvTranspose2d(8, outputs, kernel, stride=2, padding=1, **options)  # type: ignore[arg-type]
    return [up, nn.BatchNorm2d(outputs), nn.ReLU()]


def _network(*parts: list[nn.Module], channels: int = 8) -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return randomise(nn.Sequential(*[layer for part in parts for layer in part], *head))


RESAMPLING_NETS: dict[str, Callable[[], nn.Module]] = {
    "transposed": lambda: _network(_conv(3, 8, stride=2, padding=1), _up(6, 4, bias=False), _conv(6, 8)),
    "transposed, grouped": lambda: _network(
        _conv(3, 8, stride=2, padding=1), _up(6, 3, output_padding=1, groups=2), _conv(6, 8)
    ),
    "shuffle": lambda: _network(
        _conv(3, 16, stride=2, padding=1), [nn.PixelShuffle(2)], _conv(4, 8, padding=1), [nn.PixelUnshuffle(2)],
        _conv(32, 8),
    ),
    "nearest": lambda: _network(
        _conv(3, 8, stride=2, padding=1), [nn.Upsample(scale_factor=2)], _conv(8, 8), [ToSize((9, 12))], _conv(8, 8)
    ),
    "bilinear": lambda: _network(
        _conv(3, 8, stride=2, padding=1), [nn.Upsample(scale_factor=2, mode="bilinear")], _conv(8, 8),
        [ToSize((11, 13), mode="bilinear", align_corners=True)], _conv(8, 8),
    ),
    "padding": lambda: _network(
        _conv(3, 8, padding=1, padding_mode="circular"), _conv(8, 8, padding=1, padding_mode="reflect"),
        _conv(8, 8, padding=1, padding_mode="replicate"), [nn.ReflectionPad2d((1, 2, 0, 1))], _conv(8, 8),
    ),
    "ceil mode": lambda: _network(
        _conv(3, 8, padding=1), [nn.MaxPool2d(3, 2, ceil_mode=True)], [nn.Conv2d(8, 8, 2), nn.ReLU()],
        [nn.MaxPool2d(2, 2, 1, ceil_mode=True)], _conv(8, 8, padding=2), [nn.AvgPool2d(2, 2, ceil_mode=True)],
        _conv(8, 8, padding=1), [nn.AvgPool2d(3, 2, 1, ceil_mode=True)],
    ),
    "group norm": lambda: _network(
        [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8, affine=True)],
        _conv(8, 8),
    ),
}  # fmt: skip
