"""The networks of the ConvNets space as modules: units, blocks, cells.

Every order is convolution - norm - relu, so that each norm folds into the convolution before it. Activations are relu,
in place only where nothing else reads the tensor: directly behind a norm, a convolution or a sum. `cost.py` counts the
same walk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.spaces.convnets.meta_layers import Layers, Pair
from ghnq.spaces.convnets.specs import (
    BasicBlock,
    Block,
    BottleneckBlock,
    ConvBlock,
    InvertedBlock,
    SeparableBlock,
    Stage,
    joined,
)
from ghnq.torch_compat import own_modules


class Unit(nn.Module):
    """convolution - norm - relu; without norms the convolution has a bias, with `relu=False` the end is linear."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    relu: bool

    def __init__(
        self,
        make: Layers,
        inputs: int,
        outputs: int,
        kernel: int | Pair,
        *,
        stride: int | Pair = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        stride = (stride, stride) if isinstance(stride, int) else stride
        # Straight into the children: a third of the time of building a network would go into nn.Module.__setattr__.
        own_modules(self)["conv"] = make.conv(
            inputs, outputs, kernel, stride=stride, dilation=1, groups=groups, bias=not make.norm
        )
        own_modules(self)["norm"] = make.batch_norm(outputs) if make.norm else None
        self.__dict__["relu"] = relu

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride], rounded up."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x, inplace=True) if self.relu else x


def _joined(join: str, x: Tensor, y: Tensor) -> Tensor:
    if join == "sum":
        return x + y
    return torch.cat((x, y), dim=1) if join == "concat" else y


class Conv(nn.Module):
    """A plain convolution, joined with its input as the block says."""

    def __init__(self, make: Layers, inputs: int, block: ConvBlock, stride: int) -> None:
        super().__init__()
        self.unit = Unit(make, inputs, block.channels, block.kernel, stride=stride)
        self.join = block.join

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        return _joined(self.join, x, self.unit(x))


class Separable(nn.Module):
    """A depthwise and a pointwise unit, joined with their input as the block says."""

    def __init__(self, make: Layers, inputs: int, block: SeparableBlock, stride: int) -> None:
        super().__init__()
        self.depthwise = Unit(make, inputs, inputs, block.kernel, stride=stride, groups=inputs)
        self.pointwise = Unit(make, inputs, block.channels, 1)
        self.join = block.join

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        return _joined(self.join, x, self.pointwise(self.depthwise(x)))


class Inverted(nn.Module):
    """Expand, depthwise, project linearly; adds its input where the shapes agree."""

    def __init__(self, make: Layers, inputs: int, block: InvertedBlock, stride: int) -> None:
        super().__init__()
        inner = inputs * block.expansion
        self.expand = Unit(make, inputs, inner, 1)
        self.depthwise = Unit(make, inner, inner, block.kernel, stride=stride, groups=inner)
        self.project = Unit(make, inner, block.channels, 1, relu=False)
        self.residual = stride == 1 and inputs == block.channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Residual(nn.Module):
    """A basic (two units) or bottleneck (three) residual block, relu behind the sum."""

    def __init__(self, make: Layers, inputs: int, block: BasicBlock | BottleneckBlock, stride: int) -> None:
        super().__init__()
        out = block.channels
        if isinstance(block, BasicBlock):
            self.body = nn.Sequential(
                Unit(make, inputs, out, 3, stride=stride),
                Unit(make, out, out, 3, relu=False),
            )
        else:
            inner = out // block.reduction
            self.body = nn.Sequential(
                Unit(make, inputs, inner, 1),
                Unit(make, inner, inner, block.kernel, stride=stride),
                Unit(make, inner, out, 1, relu=False),
            )
        fits = stride == 1 and inputs == out
        self.shortcut = None if fits else Unit(make, inputs, out, 1, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(shortcut + self.body(x), inplace=True)


class StageModule(nn.Sequential):
    """The blocks of one stage, behind a 2x2 pool where the stage has one."""

    def __init__(self, make: Layers, inputs: int, stage: Stage) -> None:
        blocks: list[nn.Module] = []
        stride = stage.first_stride
        for block in stage.blocks:
            blocks.append(_block(make, inputs, block, stride))
            inputs, stride = joined(block, inputs), 1
        super().__init__(*blocks)
        self.outputs = inputs
        self.pool = stage.downsample

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, outputs, H', W'], halved if the stage downsamples."""
        if self.pool == "max_pool":
            x = F.max_pool2d(x, 2)
        elif self.pool == "avg_pool":
            x = F.avg_pool2d(x, 2)
        for block in own_modules(self).values():
            assert block is not None
            x = block(x)
        return x


def _block(make: Layers, inputs: int, block: Block, stride: int) -> nn.Module:
    if isinstance(block, ConvBlock):
        return Conv(make, inputs, block, stride)
    if isinstance(block, SeparableBlock):
        return Separable(make, inputs, block, stride)
    if isinstance(block, InvertedBlock):
        return Inverted(make, inputs, block, stride)
    return Residual(make, inputs, block, stride)
