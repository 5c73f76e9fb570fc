"""ResNet-20, MobileNetV2 and a VGG for 32x32 images in plain torch: networks with names, for `ghnq export` and parity.

ResNet-20 after He et al. 2016 (1512.03385, section 4.2, projections where shapes change), MobileNetV2 after Sandler et
al. 2018 (1801.04381) with a stem of stride 1, and a VGG-11 of half the width with batch norm (Simonyan & Zisserman
2015, 1409.1556).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INVERTED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


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


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 for CIFAR-10."""
    blocks, channels = [], 32
    for expansion, width, count, first in INVERTED:
        for i in range(count):
            blocks.append(Inverted(channels, width, expansion, 1 if i else first))
            channels = width
    stem = [*unit(3, 32, 3), nn.ReLU6()]
    return nn.Sequential(*stem, *blocks, *unit(channels, 1280, 1), nn.ReLU6(), *_classifier(1280))


def vgg11() -> nn.Module:
    """VGG-11 of half the width for CIFAR-10, with a hidden linear layer."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (32, 0, 64, 0, 128, 128, 0, 256, 256, 0, 256, 256):
        layers += [*unit(channels, width, 3), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*layers, *head)


NAMED = {"resnet20": resnet20, "mobilenet_v2": mobilenet_v2, "vgg11": vgg11}
