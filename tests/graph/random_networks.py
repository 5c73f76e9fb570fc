"""Random small networks, drawn by hypothesis as lists of instructions on a growing list of feature maps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

ACTIVATIONS = (F.relu, F.silu, torch.tanh, F.hardswish, lambda x: F.leaky_relu(x, 0.1), lambda x: x.sigmoid() * x)


class Program(nn.Module):
    """Runs instructions; each reads maps by number and appends one. All maps have `width` channels, 8x8 pixels."""

    def __init__(self, steps: list[tuple[Any, ...]], width: int, classes: int, bias: bool) -> None:
        super().__init__()
        self.steps = steps
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=bias)
        self.layers = nn.ModuleList()
        self.where: dict[int, int] = {}
        for i, (op, *_, option) in enumerate(steps):
            layer = _layer(op, width, option)
            if layer is not None:
                self.where[i] = len(self.layers)
                self.layers.append(layer)
        self.head = nn.Linear(width, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for i, (op, a, b, option) in enumerate(self.steps):
            left, right = maps[a % len(maps)], maps[b % len(maps)]
            layer = self.layers[self.where[i]] if i in self.where else None
            maps.append(_apply(op, layer, left, right, option))
        total = maps[-1]
        for other in maps[:-1]:  # every map is used, so that every parameter reaches the output
            total = total + other
        return self.head(F.adaptive_avg_pool2d(total, 1).flatten(1))


def _layer(op: str, width: int, option: int) -> nn.Module | None:
    bias = bool(option & 1)
    match op:
        case "conv":
            return nn.Conv2d(width, width, 3, padding=1, bias=bias)
        case "dil":
            return nn.Conv2d(width, width, 3, padding=2, dilation=2, groups=width, bias=bias)
        case "sep":
            return nn.Conv2d(width, width, (1, 3), padding=(0, 1), groups=2, bias=bias)
        case "bn":
            return nn.BatchNorm2d(width)
        case "gn":
            return nn.GroupNorm(2, width)
        case "cat":
            return nn.Conv2d(2 * width, width, 1, bias=bias)
        case "gate":
            return nn.Conv2d(width, width, 1)
        case "transposed":
            return nn.ConvTranspose2d(width, width, 3, padding=1, groups=1 + option % 2, bias=bias)
        case "prelu":
            return nn.PReLU(width)
        case "scale":
            return Direct((width, 1, 1) if bias else (1, width, 1, 1))
        case "shift":
            return Direct((1, width, 1, 1))
        case "position":
            return Direct((1, width, 8, 8) if bias else (8, 8))
        case "product":
            return Direct((width, width))
    return None


class Direct(nn.Module):
    """A parameter that the network uses itself."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.rand(shape))


def _apply(op: str, layer: nn.Module | None, left: Tensor, right: Tensor, option: int) -> Tensor:
    match op:
        case "add":
            return left + right if option & 1 else torch.add(left, right)
        case "add_":
            return left.clone().add_(right)
        case "iadd":
            out = left * 1.0
            out += right
            return out
        case "act":
            return ACTIVATIONS[option % len(ACTIVATIONS)](left)
        case "max":
            return F.max_pool2d(left, 3, 1, 1)
        case "avg":
            return F.avg_pool2d(left, 3, stride=1, padding=1)
        case "shuffle":
            n, c, h, w = left.shape
            return left.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        case "cat":
            assert layer is not None
            return layer(torch.cat([left, right], 1))
        case "gate":
            assert layer is not None
            return left * torch.sigmoid(layer(right))
        case "split":
            first, second = left.chunk(2, 1) if option & 1 else left.split(left.shape[1] // 2, 1)
            return torch.cat([second, first], 1)
        case "scale":
            assert isinstance(layer, Direct)
            return left * layer.value if option & 2 else layer.value * left
        case "shift" | "position":
            assert isinstance(layer, Direct)
            return left + layer.value if option & 2 else layer.value + left
        case "product":
            assert isinstance(layer, Direct)
            return (left.permute(0, 2, 3, 1) @ layer.value).permute(0, 3, 1, 2)
    assert layer is not None
    return layer(left)


OPS = ("conv", "dil", "sep", "bn", "gn", "add", "add_", "iadd", "act", "max", "avg", "shuffle", "cat", "gate")
MORE = ("transposed", "prelu", "scale", "shift", "position", "product", "split")


def programs(ops: tuple[str, ...] = OPS + MORE) -> st.SearchStrategy[Program]:
    """Programs of up to 9 instructions on maps of 4 to 8 channels."""
    step = st.tuples(st.sampled_from(ops), st.integers(0, 9), st.integers(0, 9), st.integers(0, 11))
    return st.builds(
        Program,
        st.lists(step, max_size=9),
        st.sampled_from((4, 6, 8)),
        st.integers(2, 5),
        st.booleans(),
    )
