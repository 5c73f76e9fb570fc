"""A search space in a few lines: one, two or three convolutions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index as as_integer
from typing import SupportsIndex

import torch
from torch import nn

from ghnq.errors import SpaceError
from ghnq.graph import trace
from ghnq.spaces import Cost


@dataclass(frozen=True)
class TinySpec:
    """`layers` convolutions of `channels` channels."""

    layers: int
    channels: int

    def to_json(self) -> str:
        """Returns the canonical JSON."""
        return json.dumps({"channels": self.channels, "layers": self.layers}, sort_keys=True)

    @property
    def structure_hash(self) -> str:
        """sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


class TinySpace:
    """Three architectures in each split; the splits differ by the number of channels."""

    name = "tiny"
    families: tuple[str, ...] = ("plain",)
    splits: Mapping[str, int] = {"train": 3, "val": 3, "test": 3}
    channels: Mapping[str, int] = {"train": 8, "val": 12, "test": 16}

    def spec(self, split: str, index: SupportsIndex) -> TinySpec:
        """Returns a member of a split."""
        if split not in self.splits or as_integer(index) not in range(self.splits[split]):
            raise SpaceError(f"there is no tiny/{split}/{index}; splits {', '.join(self.splits)} have 0 to 2")
        return TinySpec(as_integer(index) + 1, self.channels[split])

    def spec_from_json(self, text: str | bytes) -> TinySpec:
        """Returns the spec that `to_json` wrote."""
        return TinySpec(**json.loads(text))

    def traits(self, spec: TinySpec) -> Mapping[str, str | int]:
        """Returns the family."""
        return {"family": "plain"}

    def layout(self, spec: TinySpec) -> Iterable[tuple[str, str]]:
        """Yields one line."""
        yield "body", f"{spec.layers} convolutions 3x3 to {spec.channels}"

    def cost(self, spec: TinySpec, *, input_shape: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10) -> Cost:
        """Counts the traced network."""
        network = self.build(spec, in_channels=input_shape[0], num_classes=num_classes, device="meta")
        return Cost.from_graph(trace(network, input_shape))

    def build(
        self,
        spec: TinySpec,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        device: torch.device | str | None = None,
        running_statistics: bool = True,
    ) -> nn.Module:
        """Builds the network."""
        layers: list[nn.Module] = []
        for layer in range(spec.layers):
            inputs = spec.channels if layer else in_channels
            layers += [
                nn.Conv2d(inputs, spec.channels, 3, padding=1, bias=False, device=device),
                nn.BatchNorm2d(spec.channels, track_running_stats=running_statistics, device=device),
                nn.ReLU(),
            ]
        head = nn.Linear(spec.channels, num_classes, device=device)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


SPACE = TinySpace()
