"""Parameters, multiply-adds and depth of a spec, counted from the spec alone, in the order the network computes.

The walk mirrors `modules.py`; a test holds the two together, network by network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ghnq.spaces.convnets.specs import (
    BasicBlock,
    Block,
    BottleneckBlock,
    Cells,
    ConvBlock,
    Edge,
    Genotype,
    InvertedBlock,
    SeparableBlock,
    Spec,
    Stages,
)


class Signal(NamedTuple):
    """An activation: its channels, its height and width, and how many weighted layers lie before it."""

    channels: int
    height: int
    width: int
    depth: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs.

    parameters: trainable numbers. multiply_adds: of convolutions and linear layers, for one image.
    depth: weighted layers on the longest way from image to logits. width: channels of the widest state between blocks.
    spatial_convs: convolutions with a window larger than 1x1.
    ops: how often each op occurs among the nodes of the architecture's graph.
    """

    parameters: int
    multiply_adds: int
    depth: int
    width: int
    spatial_convs: int
    ops: Counter[str]

    @property
    def nodes(self) -> int:
        """Nodes of the architecture's graph."""
        return sum(self.ops.values())


def cost(spec: Spec, *, input_shape: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10) -> Cost:
    """Counts a spec for images of shape (channels, height, width)."""
    tally = _Tally(norm=spec.norm is not None)
    tally.ops["input"] += 1
    image = Signal(*input_shape, 0)
    x = tally.unit(image, spec.stem.channels, spec.stem.kernel, stride=spec.stem.stride)
    x = _stages(tally, spec.body, x) if isinstance(spec.body, Stages) else _cells(tally, spec.body, x)
    tally.ops["glob_avg"] += 1
    features, depth = x.channels, x.depth
    for outputs in (spec.hidden, num_classes):
        if outputs is not None:
            tally.linear(features, outputs)
            features, depth = outputs, depth + 1
    return Cost(tally.parameters, tally.multiply_adds, depth, tally.widest, tally.spatial_convs, tally.ops)


@dataclass(slots=True)
class _Tally:
    norm: bool
    parameters: int = 0
    multiply_adds: int = 0
    widest: int = 0
    spatial_convs: int = 0
    ops: Counter[str] = field(default_factory=Counter)

    def conv(
        self, x: Signal, out: int, kernel: tuple[int, int], *, stride: tuple[int, int], groups: int, op: str, bias: bool
    ) -> Signal:
        channels, height, width, depth = x
        height, width = -(-height // stride[0]), -(-width // stride[1])
        weights = out * (channels // groups) * kernel[0] * kernel[1]
        self.parameters += weights + (out if bias else 0)
        self.multiply_adds += weights * height * width
        self.spatial_convs += kernel != (1, 1)
        self.ops[op] += 1
        if bias:
            self.ops["bias"] += 1
        return Signal(out, height, width, depth + 1)

    def unit(self, x: Signal, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> Signal:
        """A convolution with its norm, or with a bias in place of the norm."""
        op = "conv" if groups == 1 else "sep_conv"
        x = self.conv(x, out, (kernel, kernel), stride=(stride, stride), groups=groups, op=op, bias=not self.norm)
        if self.norm:
            self.normed(out)
        return x

    def normed(self, channels: int) -> None:
        self.parameters += 2 * channels
        self.ops["bn"] += 1

    def depthwise(self, x: Signal, kernel: int, *, stride: int, dilation: int = 1) -> Signal:
        """A depthwise convolution with neither norm nor bias, as it stands before a pointwise one in a cell."""
        op = "dil_conv" if dilation > 1 else "sep_conv"
        return self.conv(x, x.channels, (kernel, kernel), stride=(stride, stride), groups=x.channels, op=op, bias=False)

    def linear(self, inputs: int, outputs: int) -> None:
        self.parameters += (inputs + 1) * outputs
        self.multiply_adds += inputs * outputs
        self.ops["conv"] += 1
        self.ops["bias"] += 1

    def join(self, op: str, parts: Sequence[Signal]) -> Signal:
        self.ops[op] += 1
        channels = sum(part.channels for part in parts) if op == "concat" else parts[0].channels
        return Signal(channels, parts[0].height, parts[0].width, max(part.depth for part in parts))


def _stages(tally: _Tally, body: Stages, x: Signal) -> Signal:
    for stage in body.stages:
        if stage.downsample in ("max_pool", "avg_pool"):
            tally.ops[stage.downsample] += 1
            x = Signal(x.channels, x.height // 2, x.width // 2, x.depth)
        stride = stage.first_stride
        for block in stage.blocks:
            x = _block(tally, block, x, stride)
            tally.widest = max(tally.widest, x.channels)
            stride = 1
    return x


def _block(tally: _Tally, block: Block, x: Signal, stride: int) -> Signal:
    out = block.channels
    if isinstance(block, ConvBlock):
        y = tally.unit(x, out, block.kernel, stride=stride)
        return y if block.join == "none" else tally.join(block.join, (x, y))
    if isinstance(block, SeparableBlock):
        y = tally.unit(x, x.channels, block.kernel, stride=stride, groups=x.channels)
        y = tally.unit(y, out, 1)
        return y if block.join == "none" else tally.join(block.join, (x, y))
    if isinstance(block, InvertedBlock):
        inner = x.channels * block.expansion
        y = tally.unit(x, inner, 1)
        y = tally.unit(y, inner, block.kernel, stride=stride, groups=inner)
        y = tally.unit(y, out, 1)
        return tally.join("sum", (x, y)) if stride == 1 and x.channels == out else y
    shortcut = x if stride == 1 and x.channels == out else tally.unit(x, out, 1, stride=stride)
    if isinstance(block, BasicBlock):
        y = tally.unit(tally.unit(x, out, 3, stride=stride), out, 3)
    else:
        y = _bottleneck(tally, block, x, stride)
    return tally.join("sum", (shortcut, y))


def _bottleneck(tally: _Tally, block: BottleneckBlock, x: Signal, stride: int) -> Signal:
    inner = block.channels // block.reduction
    y = tally.unit(x, inner, 1)
    y = tally.unit(y, inner, block.kernel, stride=stride)
    return tally.unit(y, block.channels, 1)


def _cells(tally: _Tally, body: Cells, x: Signal) -> Signal:
    before, now, level, halved = x, x, 0, False
    for position in range(body.count):
        reduces = position in body.reductions
        level += reduces
        inputs = _cell_inputs(tally, body, (before, now), position, body.channels[level], halved)
        out = _cell(tally, body.genotype(position), inputs, 2 if reduces else 1)
        tally.widest = max(tally.widest, out.channels)
        before, now, halved = now, out, reduces
    return now


def _cell_inputs(
    tally: _Tally, body: Cells, inputs: tuple[Signal, Signal], position: int, channels: int, halved: bool
) -> list[Signal]:
    """Brings both inputs to the cell's channels; `halved`: the first input has twice the resolution of the second."""
    states = []
    for number, (x, stride) in enumerate(zip(inputs, (2 if halved else 1, 1), strict=True)):
        needed = body.preprocess or stride == 2 or x.channels != channels
        used = needed and body.genotype(position).uses(number)
        states.append(tally.unit(x, channels, 1, stride=stride) if used else x)
    return states


def _cell(tally: _Tally, genotype: Genotype, states: list[Signal], stride: int) -> Signal:
    for edges in genotype.nodes:
        parts = [_edge(tally, edge, states[edge.source], stride if edge.source < 2 else 1) for edge in edges]
        states.append(parts[0] if len(parts) == 1 else tally.join("sum", parts))
    parts = [states[state] for state in genotype.concat]
    return parts[0] if len(parts) == 1 else tally.join("concat", parts)


def _edge(tally: _Tally, edge: Edge, x: Signal, stride: int) -> Signal:
    op, channels = edge.op, x.channels
    if op == "skip":
        return x
    if op.endswith("_pool_3x3"):
        tally.ops[op[:8]] += 1
        return Signal(channels, -(-x.height // stride), -(-x.width // stride), x.depth)
    if op == "conv_1x7_7x1":
        x = tally.conv(x, channels, (1, 7), stride=(1, stride), groups=1, op="conv", bias=False)
        x = tally.conv(x, channels, (7, 1), stride=(stride, 1), groups=1, op="conv", bias=not tally.norm)
        if tally.norm:
            tally.normed(channels)
        return x
    kernel = int(op[-1])
    if op.startswith("conv"):
        return tally.unit(x, channels, kernel, stride=stride)
    if op.startswith("dil_conv"):
        return tally.unit(tally.depthwise(x, kernel, stride=stride, dilation=2), channels, 1)
    x = tally.unit(tally.depthwise(x, kernel, stride=stride), channels, 1)
    return tally.unit(tally.depthwise(x, kernel, stride=1), channels, 1)
