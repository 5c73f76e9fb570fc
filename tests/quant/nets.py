"""Small networks with structures in which folding is easily wrong."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ghnq.quant import QuantLayer
from ghnq.torch_compat import BatchNorm


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random norm parameters and statistics, negative gains among them; returns the module in eval mode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.Conv2d | nn.Linear):
                child.weight.copy_(normal(child.weight) * (2 / child.weight[0].numel()) ** 0.5)
                if child.bias is not None:
                    child.bias.copy_(normal(child.bias) * 0.2)
            if isinstance(child, BatchNorm):
                if child.affine:
                    child.weight.copy_(1 + 0.5 * normal(child.weight))
                    child.bias.copy_(0.3 * normal(child.bias))
                if child.running_mean is not None and child.running_var is not None:
                    child.running_mean.copy_(0.3 * normal(child.running_mean))
                    child.running_var.copy_(normal(child.running_var).square() + 0.1)
    return module.eval()


class Residual(nn.Module):
    """conv-bn-relu-conv-bn, added to its input, ReLU in place; the second convolution is depthwise or grouped."""

    def __init__(self, channels: int, groups: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=bias)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y.add_(x))


class PreActivation(nn.Module):
    """bn-relu-conv-bn, the order of cells; the first norm cannot be folded."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, out, 1, bias=False)
        self.bn = nn.BatchNorm2d(out, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(torch.relu(self.bn0(x))))


def network(*, channels: int = 8, seed: int = 0) -> nn.Sequential:
    """A network with all of these, 10 outputs, for images [B, 3, H, W]."""
    net = nn.Sequential(
        nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        Residual(channels, groups=channels),
        PreActivation(channels, 2 * channels),
        Residual(2 * channels, groups=2, bias=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 10),
    )
    randomise(net, seed)
    return net


def images(count: int = 64, size: int = 16, seed: int = 1) -> Tensor:
    """Smooth random images [B, 3, size, size]: neighbours agree, as in photographs."""
    noise = torch.randn(count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=(size, size), mode="bilinear", align_corners=False)


CALIBRATION = images(128)
TEST = images(256, seed=2)


def error(module: nn.Module, net: nn.Module) -> float:
    """Mean squared difference of the logits, relative to their variance, on images not used in calibration."""
    with torch.no_grad():
        logits = net(TEST)
        return float((module(TEST) - logits).square().mean() / logits.var(dim=0).mean())


def quant_layers(module: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    return ((name, child) for name, child in module.named_modules() if isinstance(child, QuantLayer))
