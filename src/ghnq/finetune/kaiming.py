"""Fresh random weights, as networks are trained from scratch: the comparison for every other start."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from ghnq.data import ImageDataset
from ghnq.errors import GraphError
from ghnq.graph import ArchGraph
from ghnq.quant import QuantScheme
from ghnq.torch_compat import ConvNd, own_buffers, own_parameters


@dataclass(frozen=True)
class KaimingWeights:
    """Random parameters: convolutions as in He et al. 2015 (arXiv 1502.01852, Eq. 14), all else as its class does.

    Attributes:
        seed: Decides the values.
    """

    seed: int = 0
    depends_on_scheme: bool = False
    standardise: bool = False
    keep_statistics: bool = False
    trained_through: str | None = None

    def check_dataset(self, dataset: ImageDataset) -> None:
        """Any images will do."""

    def network(self, module: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> nn.Module:
        """Returns a copy of the module, on the CPU, with random parameters.

        Raises:
            GraphError: A parameter on `meta` belongs to a module that has no `reset_parameters`.
        """
        network = copy.deepcopy(module).to_empty(device="cpu") if _is_meta(module) else copy.deepcopy(module)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for name, child in network.named_modules():
                self._reset(child, name, was_meta=_is_meta(module.get_submodule(name)))
        return network

    def _reset(self, child: nn.Module, name: str, *, was_meta: bool) -> None:
        reset = getattr(child, "reset_parameters", None)
        if callable(reset):
            reset()
        elif was_meta and (any(own_parameters(child).values()) or own_buffers(child)):
            raise GraphError(
                f"'{name}' ({type(child).__name__}) has no reset_parameters(), so its parameters on the meta device "
                "have no initial value; build the module on the CPU, or add that method"
            )
        if isinstance(child, ConvNd):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")


def _is_meta(module: nn.Module) -> bool:
    own = [*own_parameters(module).values(), *own_buffers(module).values()]
    tensors = [tensor for tensor in own if tensor is not None] or [*module.parameters()]
    return any(tensor.is_meta for tensor in tensors)
