"""Random small CNNs in plain torch, by kind, for CIFAR-10-sized images: what `fidelity.py` compares the references on.

Channel counts are ones that GHN-2's reference can slice its decoder to: powers of two, or three times them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

CHANNELS = (8, 16, 24, 32, 48, 64, 96, 128)
Block = Callable[[random.Random, int, int, int], nn.Module]


def conv(c_in: int, c_out: int, kernel: int | tuple[int, int] = 3, stride: int = 1, **options: int | bool) -> nn.Conv2d:
    """A convolution that keeps the image's size, but for the stride; without bias unless asked."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    reach = int(options.get("dilation", 1))
    padding = (reach * (height // 2), reach * (width // 2))
    return nn.Conv2d(c_in, c_out, (height, width), stride, padding, **{"bias": False, **options})  # type: ignore[arg-type]


def conv_bn(c_in: int, c_out: int, kernel: int | tuple[int, int] = 3, stride: int = 1, **options: int) -> nn.Sequential:
    return nn.Sequential(conv(c_in, c_out, kernel, stride, **options), nn.BatchNorm2d(c_out), nn.ReLU())


def plain(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    return conv_bn(c_in, c_out, rng.choice((1, 3, 5, 7)), stride)


def biased(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    layer = conv(c_in, c_out, rng.choice((1, 3, 5)), stride, bias=True)
    return nn.Sequential(layer, nn.BatchNorm2d(c_out), nn.SiLU())


def without_norm(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    return nn.Sequential(conv(c_in, c_out, rng.choice((1, 3, 5)), stride, bias=rng.random() < 0.7), nn.GELU())


def one_by_n(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    n = rng.choice((3, 5, 7))
    return nn.Sequential(conv_bn(c_in, c_out, (1, n), stride), conv_bn(c_out, c_out, (n, 1)))


def dilated(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    kernel, reach = rng.choice((3, 5)), rng.choice((2, 3))
    if rng.random() < 0.5:
        return conv_bn(c_in, c_out, kernel, stride, dilation=reach)
    return nn.Sequential(conv_bn(c_in, c_in, kernel, stride, dilation=reach, groups=c_in), conv_bn(c_in, c_out, 1))


def grouped(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    return conv_bn(c_in, c_out, rng.choice((1, 3)), stride, groups=rng.choice((2, 4, 8)))


def pooled(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    kernel = rng.choice((2, 3))
    pools = (nn.MaxPool2d(kernel, stride, kernel // 2), nn.AvgPool2d(kernel, stride, kernel // 2))
    return nn.Sequential(conv_bn(c_in, c_out), rng.choice(pools))


class Residual(nn.Module):
    """x + f(x), with a projection where shapes differ."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(c_in, c_out, 3, stride), conv(c_out, c_out), nn.BatchNorm2d(c_out))
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """Wider, depthwise, narrower; x is added where it fits."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        middle = c_in * rng.choice((2, 4, 6))
        kernel = rng.choice((3, 5, 7))
        self.body = nn.Sequential(
            conv_bn(c_in, middle, 1), conv_bn(middle, middle, kernel, stride, groups=middle),
            conv(middle, c_out, 1), nn.BatchNorm2d(c_out),
        )  # fmt: skip
        self.adds = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class Concatenating(nn.Module):
    """Some branches side by side, one of them the pooled input."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        kernels = rng.sample((1, 3, 5, 7), rng.choice((2, 3)))
        width = max(c_out // 2, 16)  # so that their sum is wide enough for the reference
        self.branches = nn.ModuleList(conv_bn(c_in, width, kernel) for kernel in kernels)
        self.merge = conv_bn(width * len(kernels) + c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat([x, *(branch(x) for branch in self.branches)], 1))


class DeepNetsGate(nn.Module):
    """Squeeze and excitation as DeepNets-1M writes it: mean over flat positions, hard swish, product with a view."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.before = conv_bn(c_in, c_out, 3, stride)
        self.down, self.up = nn.Linear(c_out, c_out // 4), nn.Linear(c_out // 4, c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        squeezed = x.view(*x.shape[:2], -1).mean(dim=2)
        gate = nn.functional.hardswish(self.up(torch.relu(self.down(squeezed))))
        return x * gate.view(*gate.shape, 1, 1)


class Gate(nn.Module):
    """Squeeze and excitation as most libraries write it: global pooling, two convolutions, sigmoid, product."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.before = conv_bn(c_in, c_out, 3, stride)
        last = rng.choice((nn.Sigmoid, nn.Hardsigmoid))
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv(c_out, c_out // 4, 1, bias=True), nn.ReLU(),
            conv(c_out // 4, c_out, 1, bias=True), last(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return x * self.gate(x)


class Dense(nn.Module):
    """Every layer sees the input and all layers before it."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        growth = 32
        counts = [c_in + growth * i for i in range(rng.randint(2, 4))]
        self.layers = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), conv(c, growth)) for c in counts)
        self.merge = conv_bn(counts[-1] + growth, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return self.merge(torch.cat(seen, 1))


class Split(nn.Module):
    """One half of the channels goes through a convolution, then the halves are shuffled (ShuffleNet v2)."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.before = conv_bn(c_in, c_out, 1, stride)
        self.branch = conv_bn(c_out // 2, c_out // 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.before(x).chunk(2, 1)
        return nn.functional.channel_shuffle(torch.cat([left, self.branch(right)], 1), 2)


class Sums(nn.Module):
    """Sums of three, two of them pools without parameters."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.before, self.other = conv_bn(c_in, c_out, 3, stride), conv(c_out, c_out, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        pools = nn.functional.max_pool2d(x, 3, 1, 1) + nn.functional.avg_pool2d(x, 3, 1, 1)
        return 0.5 * (pools + self.other(x))


class Twice(nn.Module):
    """The same layers a second time."""

    def __init__(self, rng: random.Random, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.before, self.shared = conv_bn(c_in, c_out, 3, stride), conv_bn(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.shared(self.before(x)))


def odd_channels(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    middle = rng.choice((10, 20, 28))
    return nn.Sequential(conv_bn(c_in, middle, 1, stride), conv_bn(middle, c_out))


def group_norm(rng: random.Random, c_in: int, c_out: int, stride: int) -> nn.Module:
    return nn.Sequential(conv(c_in, c_out, 3, stride), nn.GroupNorm(rng.choice((1, 4)), c_out), nn.ReLU())


class Mean(nn.Module):
    """Global average as `x.mean((2, 3))`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


KINDS: dict[str, Block] = {
    "plain": plain,
    "residual": Residual,
    "inverted residual": InvertedResidual,
    "concatenating": Concatenating,
    "dense": Dense,
    "split and shuffled": Split,
    "sums and pools": Sums,
    "biases": biased,
    "without norm": without_norm,
    "1xN kernels": one_by_n,
    "dilated": dilated,
    "grouped": grouped,
    "pools": pooled,
    "gates of DeepNets-1M": DeepNetsGate,
}
MIXED = "mixed"  # each block of a kind drawn anew

# What GHN-2's reference refuses or reads differently, and why.
UNSUPPORTED = {
    "gates": "keeps a product as a node only where the second node before it is a hard activation",
    "odd channels": "slices its decoder by strides of 64 // channels, which fails where channels do not divide 64",
    "group norm": "has no op for it: the node and its parameters are left out",
    "shared layers": "stops at an assertion: a layer called twice leaves it with several first nodes",
    "mean over positions": "keeps a mean as a node only with keepdim=True",
    "head without bias": "takes the last node but one for the classifier's weight, so it needs a bias behind it",
}
_UNSUPPORTED_BLOCKS: dict[str, Block] = {
    "gates": Gate,
    "odd channels": odd_channels,
    "group norm": group_norm,
    "shared layers": Twice,
}


class Network(nn.Module):
    """A first convolution, blocks, global average, and a classifier that may have a hidden layer."""

    expected_input_sz = 32  # what the references read

    def __init__(self, rng: random.Random, blocks: list[Block], pool: nn.Module, *, head_bias: bool) -> None:
        super().__init__()
        channels = [rng.choice((16, 24, 32))]
        self.first = conv_bn(3, channels[0])
        body = []
        for i, block in enumerate(blocks):
            stride = 2 if i in (1, 3) else 1
            channels.append(channels[-1] if stride == 1 and rng.random() < 0.5 else rng.choice(CHANNELS))
            body.append(block(rng, channels[-2], channels[-1], stride))
        self.body = nn.Sequential(*body)
        self.pool = pool
        hidden = rng.choice((0, 32, 64))
        self.hidden = nn.Sequential(nn.Linear(channels[-1], hidden), nn.ReLU()) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or channels[-1], 10, bias=head_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.pool(self.body(self.first(x))).flatten(1)))


def network(kind: str, seed: int) -> Network:
    """The network of a kind and a seed."""
    rng = random.Random(f"{kind} {seed}")
    block = {**KINDS, **_UNSUPPORTED_BLOCKS}.get(kind)
    blocks = [block or rng.choice(list(KINDS.values())) for _ in range(rng.randint(2, 6))]
    pool = Mean() if kind == "mean over positions" else nn.AdaptiveAvgPool2d(1)
    return Network(rng, blocks, pool, head_bias=kind != "head without bias")
