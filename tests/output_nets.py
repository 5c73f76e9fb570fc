"""Networks whose result is no tensor: mappings, dataclasses, tuples, other objects; the logits are not first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


@dataclass
class Output:
    """A result as a dataclass."""

    features: Tensor
    logits: Tensor
    loss: Tensor | None = None


class Named(NamedTuple):
    """A result as a named tuple."""

    features: Tensor
    logits: Tensor


class ModelOutput(OrderedDict[str, Any]):
    """A result as `transformers` has it: a mapping whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


Wrap = Callable[[Tensor, Tensor, Tensor], Any]
"""Features [N, 16], a map [N, 16, H, W], logits [N, 10] -> result."""

CLEAR: dict[str, Wrap] = {
    "dictionary": lambda f, m, y: {"features": f, "map": m, "logits": y},
    "dataclass": lambda f, m, y: Output(f, y),
    "named tuple": lambda f, m, y: Named(f, y),
    "mapping": lambda f, m, y: ModelOutput(hidden_states=(m, f), logits=y),
    "object": lambda f, m, y: SimpleNamespace(features=f, logits=y),
    "tuple": lambda f, m, y: (m, y),
    "nested": lambda f, m, y: ({"features": f}, {"logits": y}),
    "list": lambda f, m, y: [y],
    "dictionary without the name": lambda f, m, y: {"map": m, "scores": y, "class": y.argmax(1)},
    "twice": lambda f, m, y: (m, y, y),
}
"""It is clear what is meant, without the number of classes."""

BY_CLASSES: dict[str, Wrap] = {
    "tuple": lambda f, m, y: (f, y),
    "dictionary": lambda f, m, y: {"features": f, "scores": y},
}
"""It is clear with the number of classes."""

UNCLEAR: Wrap = lambda f, m, y: {"first": y, "second": y * -1.0, "map": m}  # noqa: E731


class WithResult(nn.Module):
    """A small classifier that returns what `wrap` makes of its features, its last map, and its logits."""

    def __init__(self, wrap: Wrap, *, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.wrap = wrap
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 16, 3, stride=2)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Any:
        """Returns what `wrap` makes."""
        maps = torch.relu(self.second(torch.relu(self.norm(self.conv(x)))))
        features = maps.mean((2, 3))
        return self.wrap(features, maps, self.fc(features))


def plain(network: WithResult) -> WithResult:
    """Returns a network with the same parameters that returns its logits alone."""
    alone = WithResult(lambda f, m, y: y, channels=network.conv.in_channels, classes=network.fc.out_features)
    alone.load_state_dict(network.state_dict())
    return alone
