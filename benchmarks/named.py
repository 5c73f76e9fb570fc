"""Networks with names for 32x32 images in plain torch, as users bring them: for `ghnq export`, accuracy and parity.

ResNet-20 and ResNet-18 after He et al. 2016 (1512.03385, section 4.2 and table 1, projections where shapes change),
MobileNetV2 after Sandler et al. 2018 (1801.04381) with a stem of stride 1, a VGG-11 of half the width with and without
batch norm (Simonyan & Zisserman 2015, 1409.1556), ShuffleNetV2 1x (Ma et al. 2018, 1807.11164), SqueezeNet 1.1 (Iandola
et al. 2016, 1602.07360; no norms), and a small ConvNeXt (Liu et al. 2022, 2201.03545). Stems and first poolings that
shrink ImageNet's images are left out. Two networks for microcontrollers: the ResNet-8 that MLPerf Tiny classifies
CIFAR-10 with (Banbury et al. 2021, 2106.07597; here without biases and with norms in the shortcuts), and MobileNetV1 of
a quarter of the width (Howard et al. 2017, 1704.04861, table 1) with a stem of stride 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INVERTED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

SEPARABLE = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))


def unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution and its norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class Basic(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*unit(inputs, outputs, 3, stride), nn.ReLU(), *unit(outputs, outputs, 3))
        fits = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if fits else nn.Sequential(*unit(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Inverted(nn.Module):
    """Inverted residual: widen, depthwise, narrow without activation."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        widen = [*unit(inputs, inner, 1), nn.ReLU6()] if expansion > 1 else []
        self.body = nn.Sequential(
            *widen, *unit(inner, inner, 3, stride, groups=inner), nn.ReLU6(), *unit(inner, outputs, 1)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def _classifier(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR-10."""
    blocks, channels = [], 16
    for stage in range(3):
        for i in range(3):
            blocks.append(Basic(channels, 16 << stage, 2 if stage and not i else 1))
            channels = 16 << stage
    return nn.Sequential(*unit(3, 16, 3), nn.ReLU(), *blocks, *_classifier(64))


def resnet8() -> nn.Module:
    """ResNet-8 for CIFAR-10, as in MLPerf Tiny: one block a stage."""
    blocks = [Basic(16, 16, 1), Basic(16, 32, 2), Basic(32, 64, 2)]
    return nn.Sequential(*unit(3, 16, 3), nn.ReLU(), *blocks, *_classifier(64))


def mobilenet_v1_quarter() -> nn.Module:
    """MobileNetV1 for CIFAR-10, a quarter as wide."""
    layers: list[nn.Module] = [*unit(3, 8, 3), nn.ReLU()]
    channels = 8
    for width, stride in SEPARABLE:
        layers += [*unit(channels, channels, 3, stride, groups=channels), nn.ReLU()]
        layers += [*unit(channels, width, 1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, *_classifier(channels))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 for CIFAR-10."""
    blocks, channels = [], 32
    for expansion, width, count, first in INVERTED:
        for i in range(count):
            blocks.append(Inverted(channels, width, expansion, 1 if i else first))
            channels = width
    stem = [*unit(3, 32, 3), nn.ReLU6()]
    return nn.Sequential(*stem, *blocks, *unit(channels, 1280, 1), nn.ReLU6(), *_classifier(1280))


def resnet18() -> nn.Module:
    """ResNet-18 with a 3x3 stem for CIFAR-10: 11 million parameters."""
    blocks, channels = [], 64
    for stage in range(4):
        for i in range(2):
            blocks.append(Basic(channels, 64 << stage, 2 if stage and not i else 1))
            channels = 64 << stage
    return nn.Sequential(*unit(3, 64, 3), nn.ReLU(), *blocks, *_classifier(512))


def _vgg11(*, norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width in (32, 0, 64, 0, 128, 128, 0, 256, 256, 0, 256, 256):
        if width:
            convolution = unit(channels, width, 3) if norm else [nn.Conv2d(channels, width, 3, padding=1)]
            layers += [*convolution, nn.ReLU()]
        else:
            layers.append(nn.MaxPool2d(2))
        channels = width or channels
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*layers, *head)


def vgg11() -> nn.Module:
    """VGG-11 of half the width for CIFAR-10, with a hidden linear layer."""
    return _vgg11(norm=True)


def vgg11_without_norms() -> nn.Module:
    """The same without batch norm, its convolutions with biases."""
    return _vgg11(norm=False)


class Shuffle(nn.Module):
    """ShuffleNetV2 block: half of the channels pass by, or both halves are made with stride 2; then channels mix."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.splits = stride == 1
        self.shortcut = (
            nn.Identity()
            if self.splits
            else nn.Sequential(*unit(inputs, inputs, 3, stride, groups=inputs), *unit(inputs, half, 1), nn.ReLU())
        )
        first = half if self.splits else inputs
        self.body = nn.Sequential(
            *unit(first, half, 1), nn.ReLU(), *unit(half, half, 3, stride, groups=half), *unit(half, half, 1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.splits else (x, x)
        joined = torch.cat((self.shortcut(left), self.body(right)), 1)
        return joined.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def shufflenet_v2() -> nn.Module:
    """ShuffleNetV2 1x for CIFAR-10, without its first pooling."""
    blocks: list[nn.Module] = []
    channels = 24
    for width, count in ((116, 4), (232, 8), (464, 4)):
        for i in range(count):
            blocks.append(Shuffle(channels, width, 1 if i else 2))
            channels = width
    return nn.Sequential(*unit(3, 24, 3), nn.ReLU(), *blocks, *unit(channels, 1024, 1), nn.ReLU(), *_classifier(1024))


class Fire(nn.Module):
    """SqueezeNet block: a narrow 1x1 convolution, then 1x1 and 3x3 ones side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.point = nn.Conv2d(squeezed, expanded, 1)
        self.window = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat((torch.relu(self.point(x)), torch.relu(self.window(x))), 1)


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1 for CIFAR-10, with a linear layer behind the pooling; it has no norms."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    channels = 64
    for squeezed, expanded, pools in (
        (16, 64, False), (16, 64, True), (32, 128, False), (32, 128, True),
        (48, 192, False), (48, 192, False), (64, 256, False), (64, 256, False),
    ):  # fmt: skip
        layers.append(Fire(channels, squeezed, expanded))
        channels = 2 * expanded
        if pools:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *_classifier(channels))


class ConvNeXtBlock(nn.Module):
    """7x7 depthwise convolution, layer norm over channels, two linear layers with GELU, a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(nn.functional.gelu(self.widen(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """A small ConvNeXt for CIFAR-10: stages of 2, 2 and 2 blocks with 48, 96 and 192 channels, batch norm between."""
    layers: list[nn.Module] = [*unit(3, 48, 3)]
    for channels in (48, 96, 192):
        if channels > 48:
            layers += [nn.BatchNorm2d(channels // 2), nn.Conv2d(channels // 2, channels, 2, 2)]
        layers += [ConvNeXtBlock(channels), ConvNeXtBlock(channels)]
    return nn.Sequential(*layers, *_classifier(192))


NAMED = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "mobilenet_v1_quarter": mobilenet_v1_quarter,
    "mobilenet_v2": mobilenet_v2,
    "vgg11": vgg11,
    "resnet18": resnet18,
    "vgg11_without_norms": vgg11_without_norms,
    "shufflenet_v2": shufflenet_v2,
    "squeezenet": squeezenet,
    "convnext": convnext,
}
