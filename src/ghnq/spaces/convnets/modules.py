"""The blocks and stages of the ConvNets space as modules.

The order is always convolution - norm - relu, so that each norm folds into the convolution before it. A relu is in
place only if nothing else reads its input: directly after a norm, a convolution or a sum. `cost.py` mirrors these
modules.

Dimensions: B images, I and O in- and out-channels, H and W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.spaces.convnets.layer_factory import LayerFactory, Pair
from ghnq.spaces.convnets.specs import (
    BasicBlock,
    Block,
    BottleneckBlock,
    ConvBlock,
    InvertedBlock,
    SeparableBlock,
    Stage,
    output_channels,
)
from ghnq.torch_compat import own_modules


class ConvNormRelu(nn.Module):
    """convolution - norm - relu. Without norms the convolution has a bias; with `relu=False` there is no activation."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    relu: bool

    def __init__(
        self,
        layers: LayerFactory,
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
        # Not by attribute assignment: nn.Module.__setattr__ would take a third of the time of building a network.
        own_modules(self)["conv"] = layers.conv(
            inputs, outputs, kernel, stride=stride, dilation=1, groups=groups, bias=not layers.norm
        )
        own_modules(self)["norm"] = layers.batch_norm(outputs) if layers.norm else None
        self.__dict__["relu"] = relu

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride], rounded up."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x, inplace=True) if self.relu else x


def _join(join: str, x: Tensor, y: Tensor) -> Tensor:
    if join == "sum":
        return x + y
    return torch.cat((x, y), dim=1) if join == "concat" else y


class Conv(nn.Module):
    """A convolution, whose output is joined with its input as the block specifies."""

    def __init__(self, layers: LayerFactory, inputs: int, block: ConvBlock, stride: int) -> None:
        super().__init__()
        self.unit = ConvNormRelu(layers, inputs, block.channels, block.kernel, stride=stride)
        self.join = block.join

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        return _join(self.join, x, self.unit(x))


class Separable(nn.Module):
    """A depthwise and a pointwise convolution, joined with their input as the block specifies."""

    def __init__(self, layers: LayerFactory, inputs: int, block: SeparableBlock, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNormRelu(layers, inputs, inputs, block.kernel, stride=stride, groups=inputs)
        self.pointwise = ConvNormRelu(layers, inputs, block.channels, 1)
        self.join = block.join

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        return _join(self.join, x, self.pointwise(self.depthwise(x)))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, linear projection; adds its input if the shapes are equal."""

    def __init__(self, layers: LayerFactory, inputs: int, block: InvertedBlock, stride: int) -> None:
        super().__init__()
        inner = inputs * block.expansion
        self.expand = ConvNormRelu(layers, inputs, inner, 1)
        self.depthwise = ConvNormRelu(layers, inner, inner, block.kernel, stride=stride, groups=inner)
        self.project = ConvNormRelu(layers, inner, block.channels, 1, relu=False)
        self.residual = stride == 1 and inputs == block.channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Residual(nn.Module):
    """A residual block, basic (two convolutions) or bottleneck (three), with a relu after the sum."""

    def __init__(self, layers: LayerFactory, inputs: int, block: BasicBlock | BottleneckBlock, stride: int) -> None:
        super().__init__()
        out = block.channels
        if isinstance(block, BasicBlock):
            self.body = nn.Sequential(
                ConvNormRelu(layers, inputs, out, 3, stride=stride),
                ConvNormRelu(layers, out, out, 3, relu=False),
            )
        else:
            inner = out // block.reduction
            self.body = nn.Sequential(
                ConvNormRelu(layers, inputs, inner, 1),
                ConvNormRelu(layers, inner, inner, block.kernel, stride=stride),
                ConvNormRelu(layers, inner, out, 1, relu=False),
            )
        fits = stride == 1 and inputs == out
        self.shortcut = None if fits else ConvNormRelu(layers, inputs, out, 1, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(shortcut + self.body(x), inplace=True)


class StageModule(nn.Sequential):
    """The blocks of one stage, after a 2x2 pooling if the stage has one."""

    def __init__(self, layers: LayerFactory, inputs: int, stage: Stage) -> None:
        blocks: list[nn.Module] = []
        stride = stage.first_stride
        for block in stage.blocks:
            blocks.append(_block(layers, inputs, block, stride))
            inputs, stride = output_channels(block, inputs), 1
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


def _block(layers: LayerFactory, inputs: int, block: Block, stride: int) -> nn.Module:
    if isinstance(block, ConvBlock):
        return Conv(layers, inputs, block, stride)
    if isinstance(block, SeparableBlock):
        return Separable(layers, inputs, block, stride)
    if isinstance(block, InvertedBlock):
        return Inverted(layers, inputs, block, stride)
    return Residual(layers, inputs, block, stride)
