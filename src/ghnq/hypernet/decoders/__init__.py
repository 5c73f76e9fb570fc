"""Decoders: node embeddings and slot groups in, one stacked tensor per group out."""

from collections.abc import Callable

from torch import nn

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.conv import ConvDecoder
from ghnq.hypernet.decoders.lowrank import LowRankDecoder

DECODERS: dict[str, Callable[[GHNConfig], nn.Module]] = {
    "conv": ConvDecoder.from_config,
    "lowrank": LowRankDecoder.from_config,
}
