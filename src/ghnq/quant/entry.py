"""How every function of this package takes a network: checked, copied, in eval mode, in float32, with plain norms."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from ghnq.errors import GhnqWarning, SchemeError
from ghnq.module_check import check_network
from ghnq.module_copy import copy_module
from ghnq.quant.computed_weights import materialise_computed
from ghnq.quant.data_flow import DataFlow, observe_data_flow
from ghnq.quant.observed_layers import materialise_observed
from ghnq.torch_compat import BatchNormOfAnyRank, own_buffers, own_parameters

_HALF_PRECISION = (torch.float16, torch.bfloat16)


def take_network(module: object, function: str) -> nn.Module:
    """Returns a copy of a network in eval mode that can be calibrated, folded and quantized.

    Wrappers are left out, SyncBatchNorm becomes batch norm (both with a warning), parameters that are computed from
    others become constants, and float16 and bfloat16 become float32, in which all statistics and scales are computed:
    each of their values is a value of float32.

    Args:
        module: What the user gave; it is not changed.
        function: The name of the function that it was given to, for messages.

    Raises:
        SchemeError: It cannot be taken; the message names the part that is refused.
    """
    checked = check_network(module, function, SchemeError)
    if any(tensor.is_meta for tensor in [*checked.parameters(), *checked.buffers()]):
        raise SchemeError("the module is on the meta device and has no weights: put parameters into it first")
    network = copy_module(checked, {}).eval()
    given = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    _to_float32(network)
    if given != torch.float32:
        network.register_forward_pre_hook(CastImages(torch.promote_types(given, torch.float32)), prepend=True)
    materialise_computed(network)
    _convert_sync_batch_norm(network)
    return network


def observe_plain_layers(network: nn.Module, images: Tensor) -> DataFlow:
    """Returns the data flow of a network in eval mode, after modules that are plain layers became such, in place.

    Args:
        images: At least two, of the type of the network.
    """
    data_flow = observe_data_flow(network, images)
    if data_flow.unquantizable and materialise_observed(network, images):
        data_flow = observe_data_flow(network, images)
    return data_flow


def as_network(network: nn.Module, images: Tensor) -> Tensor:
    """Returns images in the type and on the device of the parameters of a network."""
    like = next((p for p in network.parameters() if p.is_floating_point()), None)
    return images if like is None else images.to(device=like.device, dtype=like.dtype)


@torch.no_grad()
def _to_float32(network: nn.Module) -> None:
    """Casts parameters, buffers and other attributes of half precision to float32, in place."""
    for module in network.modules():
        for parameter in own_parameters(module).values():
            if parameter is not None and parameter.dtype in _HALF_PRECISION:
                parameter.data = parameter.data.float()
        for tensors in (own_buffers(module), module.__dict__):
            for name, tensor in tensors.items():
                if isinstance(tensor, Tensor) and tensor.dtype in _HALF_PRECISION:
                    tensors[name] = tensor.float()


class CastImages:
    """A forward pre-hook that casts images to the type of a network's parameters, where that loses nothing."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, network: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
        """Returns the arguments with floating-point tensors of at most that precision cast."""
        return tuple(self._cast(value) for value in args)

    def _cast(self, value: object) -> object:
        if isinstance(value, Tensor) and value.dtype != self.dtype and value.is_floating_point():
            return value.to(self.dtype) if torch.promote_types(value.dtype, self.dtype) == self.dtype else value
        return value


def _convert_sync_batch_norm(network: nn.Module) -> None:
    names = [name for name, module in network.named_modules() if isinstance(module, nn.SyncBatchNorm)]
    for name in names:
        network.get_submodule(name).__class__ = BatchNormOfAnyRank
    if names:
        warnings.warn(
            f"SyncBatchNorm is converted to batch norm, which computes the same on one device: {', '.join(names)}",
            GhnqWarning,
            stacklevel=4,
        )
