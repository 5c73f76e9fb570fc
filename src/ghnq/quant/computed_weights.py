"""Parameters that are computed from others: in eval mode they are constants, and these are quantized.

Weight normalisation (Salimans and Kingma 2016, arXiv 1602.07868), spectral normalisation (Miyato et al. 2018, arXiv
1802.05957) and pruning, of torch's old kind (hooks) and of its new kind (parametrizations).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ghnq.torch_compat import computed_by_hooks, own_parameters, remove_computing_hook


@torch.no_grad()
def materialise_computed(network: nn.Module) -> None:
    """Replaces parameters that torch computes by their values, in place; the network must be in eval mode.

    The parameters that they are computed from disappear.
    """
    for module in list(network.modules()):
        parametrized = parametrize.is_parametrized(module)
        if parametrized:
            _remove_parametrizations(module)
        hooked = computed_by_hooks(module)
        for name in hooked:
            remove_computing_hook(module, name)
        if hooked or parametrized:
            _order_parameters(module)


def _remove_parametrizations(module: nn.Module) -> None:
    assert isinstance(module.parametrizations, nn.ModuleDict)
    values: dict[str, Tensor] = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
    buffers = {name for name, each in module.parametrizations.items() if not list(each.parameters(recurse=False))}
    # Not by `remove_parametrizations`: it removes the properties of the class, which other copies of the module share.
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        if name in buffers:
            module.register_buffer(name, value)
        else:
            module.register_parameter(name, nn.Parameter(value))


def _order_parameters(module: nn.Module) -> None:
    """Restores the order in which layers register their parameters, which is that of the state dict."""
    parameters = own_parameters(module)
    for name in ("weight", "bias"):
        if name in parameters:
            parameters[name] = parameters.pop(name)
