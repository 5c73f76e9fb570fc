"""Modules with predicted parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.graph.ir import ArchGraph
from ghnq.graph.tracing.trace import trace
from ghnq.hypernet.model import GHN, check_ghn
from ghnq.module_check import held_by_functions, unwrapped
from ghnq.module_copy import copy_module
from ghnq.quant.scheme import QuantScheme
from ghnq.quant.standardisation import mark_predicted
from ghnq.torch_compat import BatchOrInstanceNorm, iterate_spectral_norms, own_buffers, own_parameters

_POWER_ITERATIONS = 15  # as many as torch makes for the first weights of `parametrizations.spectral_norm`
_INITIAL = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}


def initialize(
    module: nn.Module,
    ghn: GHN,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    *,
    scheme: str | QuantScheme = "float32",
    output: str | None = None,
) -> nn.Module:
    """Returns a copy of the module, on the CPU, with predicted parameters; the given module is not changed.

    A parameter that reaches no output keeps its value, and a warning names it.

    The module may live on `meta`. Batch-norm statistics are those of a fresh module (mean 0, variance 1): estimate them
    from calibration images, as `ghnq.quantize` does, before evaluating. Convolutions that meet no norm are standardised
    there as well (ghnq.quant.standardisation), as long as the weights are the predicted ones.

    Args:
        input_shape: (channels, height, width) of an image.
        scheme: The precision the network will be quantized to, for a hypernetwork trained with `condition`.
        output: Which of several outputs is the logits, as in `ghnq.trace`.

    Raises:
        GraphError: The module cannot be traced.
        GhnqError: `ghn` is no hypernetwork.
    """
    check_ghn(ghn, "initialize()")
    return mark_predicted(initialize_traced(module, trace(module, input_shape, output=output), ghn, scheme))


def initialize_traced(
    module: nn.Module, graph: ArchGraph, ghn: GHN, scheme: str | QuantScheme, *, channels_last: bool = False
) -> nn.Module:
    """Returns what `initialize` returns, for a module that has been traced.

    Args:
        graph: The traced module.
        channels_last: Whether kernels are stored in channels last.
    """
    module = unwrapped(module, say=False)  # `trace` has said it
    with torch.no_grad():
        predicted = ghn.predict(graph, scheme, channels_last=channels_last)
        network = with_parameters(module, predicted | _unpredicted(module, graph.unused))
        for child in network.modules():
            iterate_spectral_norms(child, _POWER_ITERATIONS)
    return network


def _unpredicted(module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """Returns copies of parameters for which nothing is predicted; raises GraphError if one is on `meta`."""
    kept = {name: parameter for name, parameter in module.named_parameters() if name in names}
    for name, parameter in kept.items():
        if parameter.is_meta:
            raise GraphError(
                f"nothing is predicted for parameter '{name}', which reaches no output, and on the meta device it has "
                "no value to keep; build the module on the CPU"
            )
    return {name: parameter.detach().cpu().clone() for name, parameter in kept.items()}


def with_parameters(module: nn.Module, parameters: Mapping[str, Tensor]) -> nn.Module:
    """Returns a copy of the module that holds the given tensors, not copies of them, and fresh batch-norm statistics.

    Predicted tensors of one shape share one storage: `clone()` a tensor before it is saved alone. They are cast to the
    type of the module's parameters. Other buffers are copied.

    Raises:
        GraphError: A name is missing or unknown, a shape differs, a buffer on `meta` has no known initial value, or
            a `forward` that was replaced on an instance holds the original layer.
    """
    held = held_by_functions(module)
    if held:
        raise GraphError(
            f"module {held[0]!r} has a `forward` of its own, a function that holds the original layer: a copy with "
            "other parameters would still compute with the old ones; write it as a subclass"
        )
    memo: dict[int, object] = {}
    left = dict(parameters)
    missing = []
    for path, child in module.named_modules():
        for own, parameter in own_parameters(child).items():
            if parameter is None or id(parameter) in memo:
                continue
            name = f"{path}.{own}" if path else own
            tensor = left.pop(name, None)
            if tensor is None:
                missing.append(name)
                continue
            if parameter.shape != tensor.shape:
                raise GraphError(
                    f"parameter '{name}' has shape {tuple(tensor.shape)}, the module expects {tuple(parameter.shape)}"
                )
            # Replaced while copying, so a module on `meta` is never materialised, and shared parameters stay shared.
            # `.data` gives it a version counter of its own: tensors of one shape are parts of one stack.
            memo[id(parameter)] = nn.Parameter(tensor.data.to(parameter.dtype), requires_grad=parameter.requires_grad)
        if own_buffers(child):
            memo |= _fresh_buffers(child, path)
    if missing or left:
        raise GraphError(f"the parameters do not fit the module: missing {sorted(missing)}, unknown {sorted(left)}")
    return copy_module(module, memo)


def _fresh_buffers(module: nn.Module, path: str) -> dict[int, Tensor]:
    """Returns initial statistics for the buffers of a norm, by id; other buffers are copied with their module."""
    fresh: dict[int, Tensor] = {}
    norm = isinstance(module, BatchOrInstanceNorm)
    for name, buffer in own_buffers(module).items():
        if buffer is None:
            continue
        if norm and name in _INITIAL:
            fresh[id(buffer)] = torch.full(buffer.shape, _INITIAL[name], dtype=buffer.dtype)
        elif buffer.is_meta:
            raise GraphError(
                f"buffer '{name}' of module '{path}' is on the meta device and its value is unknown; "
                "build the module on the CPU"
            )
    return fresh
