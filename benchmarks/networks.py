"""MobileNet v2, ResNet-50 and DenseNet-121 in plain torch, as in torchvision, with 10 classes; chains that grow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INVERTED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def conv_bn(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(c_out))


class Head(nn.Module):
    """Global average and classifier behind a body."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.pool, self.fc = body, nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.body(x)).flatten(1))


class Inverted(nn.Module):
    """Inverted residual of MobileNet v2: (expand,) depthwise, project."""

    def __init__(self, c_in: int, c_out: int, expand: int, stride: int) -> None:
        super().__init__()
        c = c_in * expand
        widen = (conv_bn(c_in, c, 1), nn.ReLU6()) if expand > 1 else ()
        self.body = nn.Sequential(*widen, conv_bn(c, c, 3, stride, groups=c), nn.ReLU6(), conv_bn(c, c_out, 1))
        self.adds = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def mobilenet_v2() -> nn.Module:
    body: list[nn.Module] = [conv_bn(3, 32, 3, 2), nn.ReLU6()]
    c = 32
    for expand, width, count, first in INVERTED:
        for i in range(count):
            body.append(Inverted(c, width, expand, 1 if i else first))
            c = width
    return Head(nn.Sequential(*body, conv_bn(c, 1280, 1), nn.ReLU6()), 1280)


class Bottleneck(nn.Module):
    """Residual block of ResNet-50: narrow, 3x3, wide."""

    def __init__(self, c_in: int, c: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(c_in, c, 1), nn.ReLU(), conv_bn(c, c, 3, stride), nn.ReLU(), conv_bn(c, c_out, 1)
        )
        self.shortcut = conv_bn(c_in, c_out, 1, stride) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    body: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for i in range(count):
            body.append(Bottleneck(c, 64 << stage, 256 << stage, 2 if stage and not i else 1))
            c = 256 << stage
    return Head(nn.Sequential(*body), 2048)


class DenseLayer(nn.Module):
    """Norm, narrow, norm, 3x3; 32 new channels behind the ones that came."""

    def __init__(self, c_in: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c_in), nn.ReLU(), conv_bn(c_in, 128, 1), nn.ReLU(), nn.Conv2d(128, 32, 3, 1, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class DenseBlock(nn.Module):
    """Each layer takes the concatenation of all that came before."""

    def __init__(self, c_in: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(c_in + 32 * i) for i in range(count))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return torch.cat(seen, 1)


def densenet121() -> nn.Module:
    body: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for block, count in enumerate((6, 12, 24, 16)):
        if block:
            body += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)]
            c //= 2
        body.append(DenseBlock(c, count))
        c += 32 * count
    return Head(nn.Sequential(*body, nn.BatchNorm2d(c), nn.ReLU()), c)


class Residual(nn.Module):
    """x + relu(bn(conv(x))): three nodes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(channels, channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def residual_chain(nodes: int, channels: int) -> nn.Module:
    """A chain of residual blocks with so many nodes in its graph, or up to two more."""
    blocks = (Residual(channels) for _ in range(-(-(nodes - 6) // 3)))
    return Head(nn.Sequential(conv_bn(3, channels), *blocks), channels)


class Wide(nn.Module):
    """Branches side by side, concatenated: a convolution and its norm each."""

    def __init__(self, branches: int, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(3, channels)
        self.branches = nn.ModuleList(conv_bn(channels, channels) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([torch.relu(branch(x)) for branch in self.branches], 1)


def wide(nodes: int, channels: int) -> nn.Module:
    """About so many nodes, but only a few levels."""
    branches = (nodes - 7) // 2
    return Head(Wide(branches, channels), channels * branches)
