"""What is done to the weights of a network before it is trained on.

A start takes the float network and a random generator, and changes the network in place. The one that keeps the lead of
predicted weights at every budget is a matter of measurement; a new one needs a line in `STARTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

Start = Callable[[nn.Module, torch.Generator], None]


def identity(network: nn.Module, generator: torch.Generator) -> None:
    """Leaves the weights as they are."""


STARTS: Mapping[str, Start] = {"identity": identity}
"""Starts by name."""
