"""The networks of the ConvNets space, built from their specs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.errors import SpaceError
from ghnq.spaces.convnets.cells import make_cells
from ghnq.spaces.convnets.layer_factory import LayerFactory, MetaLayerFactory
from ghnq.spaces.convnets.modules import ConvNormRelu, StageModule
from ghnq.spaces.convnets.specs import Cells, Spec, Stages


class ConvNet(nn.Module):
    """A network of the ConvNets space: stem, body (`stages` or `cells`), global average, one or two linear layers."""

    def __init__(self, layers: LayerFactory, spec: Spec, in_channels: int, num_classes: int) -> None:
        super().__init__()
        stem = spec.stem
        self.stem = ConvNormRelu(layers, in_channels, stem.channels, stem.kernel, stride=stem.stride)
        features = self._add_body(layers, spec, stem.channels)
        self.hidden = None if spec.hidden is None else layers.linear(features, spec.hidden)
        self.classifier = layers.linear(spec.hidden or features, num_classes)

    def _add_body(self, layers: LayerFactory, spec: Spec, inputs: int) -> int:
        raise NotImplementedError

    def _features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, in_channels, H, W], 8x8 or larger -> logits [B, num_classes]."""
        x = F.adaptive_avg_pool2d(self._features(self.stem(images)), 1).flatten(1)
        if self.hidden is not None:
            x = F.relu(self.hidden(x), inplace=True)
        logits: Tensor = self.classifier(x)
        return logits


class StageNet(ConvNet):
    """A network of the stages family."""

    def _add_body(self, layers: LayerFactory, spec: Spec, inputs: int) -> int:
        assert isinstance(spec.body, Stages)
        stages = []
        for stage in spec.body.stages:
            stages.append(StageModule(layers, inputs, stage))
            inputs = stages[-1].outputs
        self.stages = nn.Sequential(*stages)
        return inputs

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.stages(x)
        return features


class CellNet(ConvNet):
    """A network of the cells family."""

    def _add_body(self, layers: LayerFactory, spec: Spec, inputs: int) -> int:
        assert isinstance(spec.body, Cells)
        self.cells, features = make_cells(layers, spec.body, inputs)
        return features

    def _features(self, x: Tensor) -> Tensor:
        previous = x
        for cell in self.cells:
            previous, x = x, cell(previous, x)
        return x


def build(
    spec: Spec,
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    device: torch.device | str | None = None,
    running_statistics: bool = True,
) -> nn.Module:
    """Builds the network of a spec, for images [B, in_channels, H, W] from 8x8 up.

    Args:
        device: With `meta` nothing is allocated or initialised. Otherwise convolutions are He-initialised with
            PyTorch's global generator, and the rest is initialised as PyTorch does.
        running_statistics: Whether batch norms keep running statistics; if not, they always use the batch's.

    Raises:
        SpaceError: `in_channels` or `num_classes` is below 1.
    """
    if in_channels < 1 or num_classes < 1:
        raise SpaceError(f"in_channels={in_channels} and num_classes={num_classes} must both be at least 1")
    on = None if device is None else torch.device(device)
    norm = spec.norm is not None
    layers = (
        MetaLayerFactory(norm=norm, running_statistics=running_statistics)
        if on is not None and on.type == "meta"
        else LayerFactory(norm=norm, device=on, running_statistics=running_statistics)
    )
    network = StageNet if isinstance(spec.body, Stages) else CellNet
    return network(layers, spec, in_channels, num_classes)
