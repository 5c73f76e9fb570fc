"""The cells of the ConvNets space as modules (DARTS; the operations of DeepNets-1M, Knyazev et al., 2021).

Dimensions: B images, C channels, H and W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.spaces.convnets.layer_factory import LayerFactory
from ghnq.spaces.convnets.literals import CellOp
from ghnq.spaces.convnets.modules import ConvNormRelu
from ghnq.spaces.convnets.specs import Cells, Edge, Genotype


class SeparableConv(nn.Module):
    """depthwise - pointwise - norm - relu; once with dilation 2 (`dil_conv`), or twice in a row (`sep_conv`)."""

    def __init__(self, layers: LayerFactory, channels: int, kernel: int, stride: int, *, dilated: bool) -> None:
        super().__init__()
        dilation = 2 if dilated else 1
        self.depthwise = _depthwise(layers, channels, kernel, stride, dilation)
        self.pointwise = ConvNormRelu(layers, channels, channels, 1)
        if not dilated:
            self.depthwise2 = _depthwise(layers, channels, kernel, 1, dilation)
            self.pointwise2 = ConvNormRelu(layers, channels, channels, 1)
        self.twice = not dilated

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H / stride, W / stride]."""
        x = self.pointwise(self.depthwise(x))
        return self.pointwise2(self.depthwise2(x)) if self.twice else x


class FactorizedConv(nn.Module):
    """A 1x7 convolution, then 7x1 convolution - norm - relu."""

    def __init__(self, layers: LayerFactory, channels: int, stride: int) -> None:
        super().__init__()
        self.row = layers.conv(channels, channels, (1, 7), stride=(1, stride), dilation=1, groups=1, bias=False)
        self.column = ConvNormRelu(layers, channels, channels, (7, 1), stride=(stride, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H / stride, W / stride]."""
        out: Tensor = self.column(self.row(x))
        return out


class Cell(nn.Module):
    """One cell: optional 1x1 convolutions on its two inputs, nodes that sum their edges, a concatenation.

    `edges` holds the operations with parameters, named by the states that they connect (`0to2`).
    """

    def __init__(
        self,
        layers: LayerFactory,
        genotype: Genotype,
        channels: int,
        preprocess: tuple[ConvNormRelu | None, ConvNormRelu | None],
        stride: int,
    ) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = preprocess
        self.genotype = genotype
        self.stride = stride
        self.edges = nn.ModuleDict()
        self.nodes: list[list[tuple[CellOp, int, str]]] = []
        for state, edges in enumerate(genotype.nodes, start=2):
            node = []
            for edge in edges:
                name = f"{edge.source}to{state}"
                operation = _operation(layers, edge.op, channels, self._stride(edge))
                if operation is not None:
                    self.edges[name] = operation
                node.append((edge.op, edge.source, name))
            self.nodes.append(node)

    def _stride(self, edge: Edge) -> int:
        return self.stride if edge.source < 2 else 1

    def forward(self, previous: Tensor, current: Tensor) -> Tensor:
        """The outputs of the two preceding cells, the last one second -> [B, C * len(concat), H', W']."""
        states = [
            previous if self.preprocess0 is None else self.preprocess0(previous),
            current if self.preprocess1 is None else self.preprocess1(current),
        ]
        for node in self.nodes:
            x = self._edge(states, *node[0])
            states.append(x if len(node) == 1 else x + self._edge(states, *node[1]))
        concat = self.genotype.concat
        return states[concat[0]] if len(concat) == 1 else torch.cat([states[state] for state in concat], dim=1)

    def _edge(self, states: list[Tensor], op: CellOp, source: int, name: str) -> Tensor:
        x = states[source]
        if op == "skip":
            return x
        stride = self.stride if source < 2 else 1
        if op == "max_pool_3x3":
            return F.max_pool2d(x, 3, stride, 1)
        if op == "avg_pool_3x3":
            return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        out: Tensor = self.edges[name](x)
        return out


def make_cells(layers: LayerFactory, body: Cells, inputs: int) -> tuple[nn.ModuleList, int]:
    """Builds the cells of a body after a stem with `inputs` channels; returns them and their output channels."""
    previous, current, level, halved = inputs, inputs, 0, False
    cells = nn.ModuleList()
    for position in range(body.count):
        reduces = position in body.reductions
        level += reduces
        channels, genotype = body.channels[level], body.genotype(position)
        units: list[ConvNormRelu | None] = []
        for number, (width, stride) in enumerate(((previous, 2 if halved else 1), (current, 1))):
            needed = body.preprocess or stride == 2 or width != channels
            used = needed and genotype.uses(number)
            units.append(ConvNormRelu(layers, width, channels, 1, stride=stride) if used else None)
        cells.append(Cell(layers, genotype, channels, (units[0], units[1]), 2 if reduces else 1))
        previous, current, halved = current, channels * len(genotype.concat), reduces
    return cells, current


def _depthwise(layers: LayerFactory, channels: int, kernel: int, stride: int, dilation: int) -> nn.Conv2d:
    return layers.conv(
        channels, channels, (kernel, kernel), stride=(stride, stride), dilation=dilation, groups=channels, bias=False
    )


def _operation(layers: LayerFactory, op: CellOp, channels: int, stride: int) -> nn.Module | None:
    """Returns the module of an operation; None if it has no parameters."""
    if op == "skip" or op.endswith("_pool_3x3"):
        return None
    if op == "conv_1x7_7x1":
        return FactorizedConv(layers, channels, stride)
    kernel = int(op[-1])
    if op.startswith("conv"):
        return ConvNormRelu(layers, channels, channels, kernel, stride=stride)
    return SeparableConv(layers, channels, kernel, stride, dilated=op.startswith("dil_conv"))
