"""The weights of a trained network as a source of parameters, and as a file.

The file is safetensors with the names of `module.state_dict()`, so that `load_state_dict(strict=True)` loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ghnq.data import ImageDataset
from ghnq.files import atomic_path
from ghnq.graph import ArchGraph
from ghnq.hypernet.initialize import with_parameters
from ghnq.quant import QuantScheme

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, eq=False)
class TrainedWeights:
    """Parameters and buffers in memory; statistics of norms are kept as they were trained.

    Attributes:
        tensors: By the names of the module's state dict.
    """

    tensors: Mapping[str, Tensor]
    depends_on_scheme: bool = False
    standardise: bool = False
    keep_statistics: bool = True

    @classmethod
    def of(cls, network: nn.Module, module: nn.Module) -> TrainedWeights:
        """Returns the weights of a trained copy of a module, without what was added to the copy."""
        trained = network.state_dict()
        return cls({name: trained[name].detach().cpu().contiguous().clone() for name in module.state_dict()})

    def check_dataset(self, dataset: ImageDataset) -> None:
        """They were trained on it."""

    @torch.no_grad()
    def network(self, module: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> nn.Module:
        """Returns a copy of the module with these tensors."""
        parameters = {name: self.tensors[name] for name, _ in module.named_parameters()}
        network = with_parameters(module, parameters)
        network.load_state_dict(dict(self.tensors))
        return network

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Writes the file, whole or not at all; parameters that are shared are written under each name."""
        with atomic_path(path) as temporary:
            save_file({name: tensor.clone() for name, tensor in self.tensors.items()}, temporary, dict(metadata))
