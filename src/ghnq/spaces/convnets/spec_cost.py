"""Parameters, multiply-adds and depth of a spec, counted from the spec alone, in the order the network computes.

The functions mirror those of `modules.py` and `cells.py`; a test compares the two, network by network.
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
from ghnq.spaces.cost import Cost


class Signal(NamedTuple):
    """An activation: its channels, height and width, and the number of convolutions and linear layers before it."""

    channels: int
    height: int
    width: int
    depth: int


@dataclass(frozen=True)
class ConvNetCost(Cost):
    """The size of a member of the ConvNets space; `width` is that of the widest state between blocks or cells.

    Attributes:
        spatial_convs: The number of convolutions with a kernel larger than 1x1.
    """

    spatial_convs: int


def cost(spec: Spec, *, input_shape: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10) -> ConvNetCost:
    """Counts a spec for images of shape (channels, height, width)."""
    counter = _Counter(norm=spec.norm is not None)
    counter.ops["input"] += 1
    image = Signal(*input_shape, 0)
    x = counter.unit(image, spec.stem.channels, spec.stem.kernel, stride=spec.stem.stride)
    x = _stages(counter, spec.body, x) if isinstance(spec.body, Stages) else _cells(counter, spec.body, x)
    counter.ops["glob_avg"] += 1
    features, depth = x.channels, x.depth
    for outputs in (spec.hidden, num_classes):
        if outputs is not None:
            counter.linear(features, outputs)
            features, depth = outputs, depth + 1
    return ConvNetCost(
        parameters=counter.parameters,
        multiply_adds=counter.multiply_adds,
        depth=depth,
        width=counter.widest,
        ops=counter.ops,
        spatial_convs=counter.spatial_convs,
    )


@dataclass(slots=True)
class _Counter:
    """The sums so far. norm: whether the network has batch norms."""

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
            self.norm_layer(out)
        return x

    def norm_layer(self, channels: int) -> None:
        """A batch norm."""
        self.parameters += 2 * channels
        self.ops["bn"] += 1

    def depthwise(self, x: Signal, kernel: int, *, stride: int, dilation: int = 1) -> Signal:
        """A depthwise convolution without norm and bias, as before a pointwise one in a cell."""
        op = "dil_conv" if dilation > 1 else "sep_conv"
        return self.conv(x, x.channels, (kernel, kernel), stride=(stride, stride), groups=x.channels, op=op, bias=False)

    def linear(self, inputs: int, outputs: int) -> None:
        """A linear layer with bias."""
        self.parameters += (inputs + 1) * outputs
        self.multiply_adds += inputs * outputs
        self.ops["conv"] += 1
        self.ops["bias"] += 1

    def join(self, op: str, parts: Sequence[Signal]) -> Signal:
        """A sum or a concatenation."""
        self.ops[op] += 1
        channels = sum(part.channels for part in parts) if op == "concat" else parts[0].channels
        return Signal(channels, parts[0].height, parts[0].width, max(part.depth for part in parts))


def _stages(counter: _Counter, body: Stages, x: Signal) -> Signal:
    for stage in body.stages:
        if stage.downsample in ("max_pool", "avg_pool"):
            counter.ops[stage.downsample] += 1
            x = Signal(x.channels, x.height // 2, x.width // 2, x.depth)
        stride = stage.first_stride
        for block in stage.blocks:
            x = _block(counter, block, x, stride)
            counter.widest = max(counter.widest, x.channels)
            stride = 1
    return x


def _block(counter: _Counter, block: Block, x: Signal, stride: int) -> Signal:
    out = block.channels
    if isinstance(block, ConvBlock):
        y = counter.unit(x, out, block.kernel, stride=stride)
        return y if block.join == "none" else counter.join(block.join, (x, y))
    if isinstance(block, SeparableBlock):
        y = counter.unit(x, x.channels, block.kernel, stride=stride, groups=x.channels)
        y = counter.unit(y, out, 1)
        return y if block.join == "none" else counter.join(block.join, (x, y))
    if isinstance(block, InvertedBlock):
        inner = x.channels * block.expansion
        y = counter.unit(x, inner, 1)
        y = counter.unit(y, inner, block.kernel, stride=stride, groups=inner)
        y = counter.unit(y, out, 1)
        return counter.join("sum", (x, y)) if stride == 1 and x.channels == out else y
    shortcut = x if stride == 1 and x.channels == out else counter.unit(x, out, 1, stride=stride)
    if isinstance(block, BasicBlock):
        y = counter.unit(counter.unit(x, out, 3, stride=stride), out, 3)
    else:
        y = _bottleneck(counter, block, x, stride)
    return counter.join("sum", (shortcut, y))


def _bottleneck(counter: _Counter, block: BottleneckBlock, x: Signal, stride: int) -> Signal:
    inner = block.channels // block.reduction
    y = counter.unit(x, inner, 1)
    y = counter.unit(y, inner, block.kernel, stride=stride)
    return counter.unit(y, block.channels, 1)


def _cells(counter: _Counter, body: Cells, x: Signal) -> Signal:
    before, now, level, halved = x, x, 0, False
    for position in range(body.count):
        reduces = position in body.reductions
        level += reduces
        inputs = _cell_inputs(counter, body, (before, now), position, body.channels[level], halved)
        out = _cell(counter, body.genotype(position), inputs, 2 if reduces else 1)
        counter.widest = max(counter.widest, out.channels)
        before, now, halved = now, out, reduces
    return now


def _cell_inputs(
    counter: _Counter, body: Cells, inputs: tuple[Signal, Signal], position: int, channels: int, halved: bool
) -> list[Signal]:
    """Brings both inputs to the cell's channels; `halved`: the first input has twice the resolution of the second."""
    states = []
    for number, (x, stride) in enumerate(zip(inputs, (2 if halved else 1, 1), strict=True)):
        needed = body.preprocess or stride == 2 or x.channels != channels
        used = needed and body.genotype(position).uses(number)
        states.append(counter.unit(x, channels, 1, stride=stride) if used else x)
    return states


def _cell(counter: _Counter, genotype: Genotype, states: list[Signal], stride: int) -> Signal:
    for edges in genotype.nodes:
        parts = [_edge(counter, edge, states[edge.source], stride if edge.source < 2 else 1) for edge in edges]
        states.append(parts[0] if len(parts) == 1 else counter.join("sum", parts))
    parts = [states[state] for state in genotype.concat]
    return parts[0] if len(parts) == 1 else counter.join("concat", parts)


def _edge(counter: _Counter, edge: Edge, x: Signal, stride: int) -> Signal:
    op, channels = edge.op, x.channels
    if op == "skip":
        return x
    if op.endswith("_pool_3x3"):
        counter.ops[op[:8]] += 1
        return Signal(channels, -(-x.height // stride), -(-x.width // stride), x.depth)
    if op == "conv_1x7_7x1":
        x = counter.conv(x, channels, (1, 7), stride=(1, stride), groups=1, op="conv", bias=False)
        x = counter.conv(x, channels, (7, 1), stride=(stride, 1), groups=1, op="conv", bias=not counter.norm)
        if counter.norm:
            counter.norm_layer(channels)
        return x
    kernel = int(op[-1])
    if op.startswith("conv"):
        return counter.unit(x, channels, kernel, stride=stride)
    if op.startswith("dil_conv"):
        return counter.unit(counter.depthwise(x, kernel, stride=stride, dilation=2), channels, 1)
    x = counter.unit(counter.depthwise(x, kernel, stride=stride), channels, 1)
    return counter.unit(counter.depthwise(x, kernel, stride=1), channels, 1)
