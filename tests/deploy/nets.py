"""Small networks, each a special case for the placement of quantizers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.quant.nets import images, network, randomise

CALIBRATION = images(64, size=8)
TEST = images(96, size=8, seed=2)


class Branches(nn.Module):
    """Residual sum without activation, concatenation of pools, an average that pads, a product, a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.right = nn.Conv2d(8, 8, 1)
        self.gate = nn.Conv2d(8, 24, 1)
        self.hidden = nn.Linear(24, 12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.left(x) + x
        z = torch.cat([F.max_pool2d(y, 2), F.avg_pool2d(self.right(x), 2), F.avg_pool2d(y, 3, 2, 1, False, False)], 1)
        gate = torch.sigmoid(self.gate(F.adaptive_avg_pool2d(F.max_pool2d(y, 2), 1)))
        features = (z * gate).mean((2, 3))
        return self.head(F.relu6(self.hidden(features)))


class ConvHead(nn.Module):
    """A convolution as classifier, averaged to logits; SiLU, hard swish and leaky ReLU on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 10, 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.convs[0](x))
        x = F.leaky_relu(self.convs[1](F.hardswish(x)), 0.1)
        return self.convs[2](F.pad(x, (1, 0, 0, 1))).mean((2, 3))


class Shuffled(nn.Module):
    """Channel split and shuffle, a layer that runs twice, a linear layer on patches, a norm that cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.shared = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(8)
        self.patches = nn.Linear(16, 6)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        one, two = torch.relu(self.stem(x)).chunk(2, 1)
        x = torch.cat([self.shared(one), self.shared(self.shared(two))], 1)
        x = x.reshape(-1, 2, 4, 4, 4).transpose(1, 2).reshape(-1, 8, 4, 4)
        x = self.patches(torch.relu(self.norm(x)).flatten(2))
        return self.head(x.flatten(1))


def chain() -> nn.Module:
    """Only the inputs of layers are quantized."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 10),
    )  # fmt: skip
    return randomise(net)


NETS: dict[str, Callable[[], nn.Module]] = {
    "chain": chain,
    "mixed": network,
    "branches": lambda: randomise(Branches(), 3),
    "conv-head": lambda: randomise(ConvHead(), 4),
    "shuffled": lambda: randomise(Shuffled(), 5),
}
