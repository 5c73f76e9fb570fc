"""Predicted parameters put into a real module."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.graph.trace import trace
from ghnq.hypernet.model import GHN
from ghnq.quant.scheme import QuantScheme


def initialize(
    module: nn.Module,
    ghn: GHN,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    *,
    scheme: str | QuantScheme = "float32",
) -> nn.Module:
    """Returns a copy of the module, on the CPU, with its parameters predicted; the given module is left as it was.

    A parameter that reaches no output keeps its value, and a warning names it.
    scheme: the precision the network will be quantized to, for a hypernetwork that was trained with `condition`.

    The module may live on `meta`. Batch-norm statistics are those of a fresh module (mean 0, variance 1): estimate them
    from calibration images, as `ghnq.quantize` does, before evaluating. Raises GraphError where the module cannot be
    traced.
    """
    graph = trace(module, input_shape)
    with torch.no_grad():
        return with_parameters(module, ghn.predict(graph, scheme) | _as_they_are(module, graph.unused))


def _as_they_are(module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """Parameters for which nothing is predicted keep their values; raises GraphError where they have none."""
    kept = {name: parameter for name, parameter in module.named_parameters() if name in names}
    for name, parameter in kept.items():
        if parameter.is_meta:
            raise GraphError(
                f"nothing is predicted for parameter '{name}', which reaches no output, and on the meta device it has "
                "no value to keep; build the module on the CPU"
            )
    return {name: parameter.detach().cpu() for name, parameter in kept.items()}


def with_parameters(module: nn.Module, parameters: Mapping[str, Tensor]) -> nn.Module:
    """Returns a copy of the module that holds the given parameters and freshly reset batch-norm statistics.

    Other buffers are copied. Raises GraphError where a name is missing, unknown, or a shape differs, or where a buffer
    on `meta` has no known initial value.
    """
    expected = dict(module.named_parameters())
    missing, unknown = expected.keys() - parameters.keys(), parameters.keys() - expected.keys()
    if missing or unknown:
        raise GraphError(f"the parameters do not fit the module: missing {sorted(missing)}, unknown {sorted(unknown)}")
    for name, parameter in expected.items():
        if parameter.shape != parameters[name].shape:
            raise GraphError(
                f"parameter '{name}' has shape {tuple(parameters[name].shape)}, "
                f"the module wants {tuple(parameter.shape)}"
            )
    # Parameters are replaced while copying (the memo), so a module on `meta` is never materialised twice, and shared
    # parameters stay shared.
    memo: dict[int, object] = {
        id(p): nn.Parameter(parameters[n].detach().clone(), requires_grad=p.requires_grad) for n, p in expected.items()
    }
    filled = copy.deepcopy(module, memo)
    for path, child in filled.named_modules():
        _reset_buffers(child, path)
    return filled


def _reset_buffers(module: nn.Module, path: str) -> None:
    norm = module if isinstance(module, nn.modules.batchnorm._NormBase) else None
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_meta:
            if norm is None:
                raise GraphError(
                    f"buffer '{name}' of module '{path}' is on the meta device and its value is unknown; "
                    "build the module on the CPU"
                )
            module.register_buffer(name, torch.empty_like(buffer, device="cpu"))
    if norm is not None:
        norm.reset_running_stats()
