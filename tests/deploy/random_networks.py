"""Random networks of every operator that is quantized and exported, for images [B, 3, 8, 8]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.deploy.resampling_nets import ToSize
from tests.quant.nets import randomise

CHANNELS = 8
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish, "leaky": lambda: nn.LeakyReLU(0.1)}
NORMS = {
    "none": nn.Identity,
    "batch": lambda: nn.BatchNorm2d(CHANNELS),
    "group": lambda: nn.GroupNorm(2, CHANNELS),
    "instance": lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
}


def _conv(**options: object) -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, **options)  # type: ignore[arg-type]


def _up(**options: object) -> nn.Module:
    return nn.ConvTranspose2d(CHANNELS, CHANNELS, **options)  # type: ignore[arg-type]


LAYERS = {
    "conv": lambda: _conv(padding=1),
    "grouped": lambda: _conv(padding=1, groups=2),
    "depthwise": lambda: _conv(padding=1, groups=CHANNELS),
    "strided": lambda: _conv(padding=1, stride=2),
    "dilated": lambda: _conv(padding=2, dilation=2),
    "circular": lambda: _conv(padding=1, padding_mode="circular"),
    "reflect": lambda: _conv(padding=1, padding_mode="reflect"),
    "replicate": lambda: _conv(padding=1, padding_mode="replicate"),
    "transposed": lambda: _up(kernel_size=4, stride=2, padding=1),
    "transposed, grouped": lambda: _up(kernel_size=3, stride=2, padding=1, output_padding=1, groups=2),
    "transposed, without bias": lambda: _up(kernel_size=2, stride=2, bias=False),
}
RESAMPLINGS = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "max, padded": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2, ceil_mode=True),
    "average, padded": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average, of the image": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "shuffle": lambda: nn.Sequential(nn.Conv2d(CHANNELS, 4 * CHANNELS, 1), nn.PixelShuffle(2)),
    "unshuffle": lambda: nn.Sequential(
        ToSize((6, 12), mode="bilinear"), nn.PixelUnshuffle(2), nn.Conv2d(4 * CHANNELS, CHANNELS, 1)
    ),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "bilinear": lambda: ToSize((7, 9), mode="bilinear"),
    "corners": lambda: ToSize((6, 12), mode="bilinear", align_corners=True),
    "zeros": lambda: nn.ZeroPad2d((1, 0, 2, 1)),
    "reflected": lambda: nn.ReflectionPad2d((1, 0, 0, 1)),
}

BILINEAR = ("bilinear", "corners", "unshuffle")


@dataclass(frozen=True)
class Block:
    """A layer, a norm, an activation and a change of size; with what goes round them."""

    layer: str
    norm: str
    activation: str
    resampling: str
    join: str

    def build(self) -> nn.Module:
        parts = nn.Sequential(
            LAYERS[self.layer](), NORMS[self.norm](), ACTIVATIONS[self.activation](), RESAMPLINGS[self.resampling]()
        )
        return parts if self.join == "none" else Joined(parts, self.join)


class Joined(nn.Module):
    """Adds the input, or puts it beside the result, where that is as large or a multiple of it.

    By nearest: bilinear weights such as 1/2 put values exactly between two integers, where runtimes round either way.
    """

    def __init__(self, parts: nn.Module, join: str) -> None:
        super().__init__()
        self.parts, self.join = parts, join
        self.both = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.parts(x)
        size = y.shape[2], y.shape[3]
        if size[0] % x.shape[2] or size[1] % x.shape[3]:
            return y
        x = nn.functional.interpolate(x, size=size)
        return self.both(torch.cat([x, y], 1)) if self.join == "concatenate" else x + y


def build(blocks: list[Block], seed: int) -> nn.Module:
    """Returns the network of some blocks, with random parameters, in eval mode."""
    torch.manual_seed(seed)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10)
    return randomise(nn.Sequential(nn.Conv2d(3, CHANNELS, 1), *(block.build() for block in blocks), *head), seed)


BLOCKS = st.builds(
    Block,
    st.sampled_from(sorted(LAYERS)), st.sampled_from(sorted(NORMS)), st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from(sorted(RESAMPLINGS)), st.sampled_from(["none", "none", "add", "concatenate"]),
)  # fmt: skip
# The same halves after ReLU6, whose 6 stays the largest value: the grids before and after resizing are equal.
NETWORKS = st.lists(
    BLOCKS.filter(lambda block: block.activation != "relu6" or block.resampling not in BILINEAR), min_size=1, max_size=3
)
SCHEMES = st.sampled_from(["float32", "w8a8", "w4a8", "w4a4", "w4"])
