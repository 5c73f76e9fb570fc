"""Decoders: node embeddings -> parameters. `Decoder` is their interface, `DECODERS` the registry."""

from __future__ import annotations

from collections.abc import Callable

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.conv import ConvDecoder
from ghnq.hypernet.decoders.decoder import Decoder
from ghnq.hypernet.decoders.lowrank import LowRankDecoder

DECODERS: dict[str, Callable[[GHNConfig], Decoder]] = {
    "conv": ConvDecoder.from_config,
    "lowrank": LowRankDecoder.from_config,
}
"""Value of `decoder` in a configuration -> what builds that decoder."""
