"""The networks of the ranking study: two budget classes of `val`, and small ones of named families.

A class is all members of `val` whose multiply-adds (3x32x32 images, 10 classes) are within a quarter of each other,
in the order of `val`. The named ones are 20 of six families at several widths and depths, with 1 to 9 million
multiply-adds: what an engineer with a microcontroller would list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from torch import nn

from ghnq.spaces import convnets
from ghnq.spaces.convnets.spec_cost import cost
from named import Basic, ConvNeXtBlock, Fire, Inverted, Shuffle, unit

CLASSES = {"2M": (1_790_000, 2_237_500), "3M": (2_700_000, 3_375_000)}
"""Least and largest multiply-adds of the budget classes: within a quarter."""
MEMBERS = 40
MEMBERS_FOR_EACH_NAMED = 4
NAMED_CLASS = "named"


def classifier(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def resnet(blocks: int, width: int) -> nn.Module:
    """ResNet of 6 * blocks + 2 layers for CIFAR-10."""
    layers: list[nn.Module] = [*unit(3, width, 3), nn.ReLU()]
    channels = width
    for stage in range(3):
        for i in range(blocks):
            layers.append(Basic(channels, width << stage, 2 if stage and not i else 1))
            channels = width << stage
    return nn.Sequential(*layers, *classifier(channels))


def mobilenet_v2(width: float, repeats: int) -> nn.Module:
    """MobileNetV2 with a stem of stride 2, narrower, and with at most so many blocks of each kind."""
    channels = max(8, int(32 * width) // 4 * 4)
    layers: list[nn.Module] = [*unit(3, channels, 3, 2), nn.ReLU6()]
    for expansion, base, count, first in ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)):
        outputs = max(8, int(base * width) // 4 * 4)
        for i in range(min(count, repeats)):
            layers.append(Inverted(channels, outputs, expansion, 1 if i else first))
            channels = outputs
    last = int(320 * width)
    return nn.Sequential(*layers, *unit(channels, last, 1), nn.ReLU6(), *classifier(last))


def vgg(width: int, repeats: int, norm: bool) -> nn.Module:
    """Four stages of 3x3 convolutions, with a pooling after each, the channels doubling."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in range(4):
        for _ in range(repeats):
            outputs = width << min(stage, 3)
            layers += unit(channels, outputs, 3) if norm else [nn.Conv2d(channels, outputs, 3, padding=1)]
            layers.append(nn.ReLU())
            channels = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *classifier(channels))


def shufflenet(width: int, repeats: int) -> nn.Module:
    """ShuffleNetV2 with three stages, the channels doubling."""
    layers: list[nn.Module] = [*unit(3, 16, 3), nn.ReLU()]
    channels = 16
    for stage in range(3):
        for i in range(repeats):
            layers.append(Shuffle(channels, width << stage, 1 if i else 2))
            channels = width << stage
    return nn.Sequential(*layers, *unit(channels, 2 * channels, 1), nn.ReLU(), *classifier(2 * channels))


def squeezenet(width: int) -> nn.Module:
    """SqueezeNet with four Fire blocks; it has no norms."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    channels = width
    for factor, pools in ((1, False), (2, True), (3, False), (4, False)):
        layers.append(Fire(channels, factor * width // 4, factor * width))
        channels = 2 * factor * width
        if pools:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *classifier(channels))


def convnext(width: int, blocks: int) -> nn.Module:
    """ConvNeXt with three stages, the channels doubling, batch norm between them."""
    layers: list[nn.Module] = [*unit(3, width, 3, 2)]
    for stage in range(3):
        channels = width << stage
        if stage:
            layers += [nn.BatchNorm2d(channels // 2), nn.Conv2d(channels // 2, channels, 2, 2)]
        layers += [ConvNeXtBlock(channels) for _ in range(blocks)]
    return nn.Sequential(*layers, *classifier(channels))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet8_8": partial(resnet, 1, 8),
    "mobilenet_v2_35": partial(mobilenet_v2, 0.35, 4),
    "vgg4_8": partial(vgg, 8, 1, norm=True),
    "shufflenet_32": partial(shufflenet, 32, 2),
    "resnet14_6": partial(resnet, 2, 6),
    "convnext_16": partial(convnext, 16, 1),
    "squeezenet_16": partial(squeezenet, 16),
    "mobilenet_v2_50_shallow": partial(mobilenet_v2, 0.5, 1),
    "vgg8_8": partial(vgg, 8, 2, norm=True),
    "resnet20_4": partial(resnet, 3, 4),
    "shufflenet_48_deep": partial(shufflenet, 48, 4),
    "vgg8_8_without_norms": partial(vgg, 8, 2, norm=False),
    "resnet8_12": partial(resnet, 1, 12),
    "mobilenet_v2_25": partial(mobilenet_v2, 0.25, 4),
    "convnext_20_deep": partial(convnext, 20, 2),
    "resnet14_8": partial(resnet, 2, 8),
    "vgg4_16": partial(vgg, 16, 1, norm=True),
    "shufflenet_64": partial(shufflenet, 64, 2),
    "squeezenet_24": partial(squeezenet, 24),
    "resnet20_6": partial(resnet, 3, 6),
}
"""The named ones; `ghnq rank benchmarks/ranking_networks.py:NETWORKS` takes them."""


def members(least: int, most: int) -> Iterator[str]:
    """Yields the members of `val` within these multiply-adds, as MODEL words."""
    for index in range(500):
        if least <= cost(convnets.spec("val", index)).multiply_adds <= most:
            yield f"convnets/val/{index}"


def study() -> list[tuple[str, str]]:
    """Returns (class, MODEL word) of all networks, in the order in which they are trained.

    Any beginning has as many of both classes, and a named one for every eight members; the other named ones come last.
    """
    small, large = (list(members(*bounds))[:MEMBERS] for bounds in CLASSES.values())
    first, second = CLASSES
    named = [(NAMED_CLASS, f"ranking_networks:NETWORKS[{name}]") for name in NETWORKS]
    order: list[tuple[str, str]] = []
    for number, pair in enumerate(zip(small, large, strict=True), start=1):
        order += zip((first, second), pair, strict=True)
        if number % MEMBERS_FOR_EACH_NAMED == 0:
            order.append(named.pop(0))
    return order + named
