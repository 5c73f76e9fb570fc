"""The names of torch that are not part of its public interface: nothing else in this package uses a private one.

torch may rename or remove them in any release, so each has one definition here, and CI runs the tests on the oldest
and on the newest torch that `pyproject.toml` allows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch._ops import _OpNamespace as OpNamespace

# PyTorch documents these base classes only through their subclasses.
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.batchnorm import _NormBase as BatchOrInstanceNorm
from torch.nn.modules.conv import _ConvNd as ConvNd
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from torch._C import Argument

__all__ = [
    "ADAPTIVE_AVG_POOL_2D",
    "BATCH_NORM_INFERENCE",
    "COMPILED_CALL_ATTRIBUTE",
    "FUSED_LAYER_FUNCTIONS",
    "SOFTMAX",
    "TO_COPY",
    "UNSAFE_VIEW",
    "BatchNorm",
    "BatchNormOfAnyRank",
    "BatchOrInstanceNorm",
    "ConvNd",
    "OpNamespace",
    "OpOverload",
    "compiler_error",
    "computed_by_hooks",
    "convolve",
    "convolve_transposed",
    "copy_layer",
    "copy_tensors",
    "cpp_compiler",
    "freeze_weights",
    "has_program_archive",
    "import_quantized_decomposed",
    "interpolate_tensors",
    "iterate_spectral_norms",
    "overridden_method",
    "own_buffers",
    "own_forward_hooks",
    "own_modules",
    "own_parameters",
    "remove_computing_hook",
    "remove_forward_hook",
    "replace_convolution",
    "schema_arguments",
    "share_hooks",
    "tree_leaves",
    "version_counter",
    "view_base",
    "wrapper_of",
]

_aten = torch.ops.aten


class BatchNormOfAnyRank(nn.BatchNorm2d):
    """A batch norm of inputs [B, C, ...] with any number of dimensions, as `nn.SyncBatchNorm` is one."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")


# ATen functions that torch.export leaves in a graph.
ADAPTIVE_AVG_POOL_2D = _aten._adaptive_avg_pool2d.default
BATCH_NORM_INFERENCE = _aten._native_batch_norm_legit_no_training.default
SOFTMAX = _aten._softmax.default
TO_COPY = _aten._to_copy.default
UNSAFE_VIEW = _aten._unsafe_view.default

FUSED_LAYER_FUNCTIONS = ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
"""Names of the functions that `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` call in eval mode."""

COMPILED_CALL_ATTRIBUTE = "_compiled_call_impl"
"""The attribute in which `nn.Module.compile` stores the compiled call."""


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Returns the dictionary in which a module stores its own parameters, by name; its children's are not in it.

    `nn.Module.named_parameters(recurse=False)` skips None and repeated tensors, and cannot be written to.
    """
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Returns the dictionary in which a module stores its own buffers, by name."""
    return module._buffers


def own_modules(module: nn.Module) -> dict[str, nn.Module | None]:
    """Returns the dictionary in which a module stores its children, by name.

    Writing to it skips `nn.Module.__setattr__`, which takes a third of the time of building a network.
    """
    return module._modules


def replace_convolution(layer: nn.Conv2d, function: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> None:
    """Replaces what a layer does with its input, weight and bias; its own `forward` calls the function."""
    layer._conv_forward = function  # type: ignore[method-assign, assignment]


def convolve(layer: ConvNd, x: Tensor, weight: Tensor) -> Tensor:
    """Returns what a convolution computes of x with another weight and its own bias, padding, stride and so on."""
    return torch.as_tensor(layer._conv_forward(x, weight, layer.bias))


def convolve_transposed(layer: ConvNd, x: Tensor, weight: Tensor, output_size: list[int] | None) -> Tensor:
    """Returns what a transposed convolution computes of x with another weight and its own bias, padding and so on."""
    n = weight.dim() - 2
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
    sizes = layer.stride, layer.padding, layer.kernel_size
    padding = layer._output_padding(x, output_size, *sizes, n, layer.dilation)  # type: ignore[operator]
    return torch.as_tensor(
        function(x, weight, layer.bias, layer.stride, layer.padding, padding, layer.groups, layer.dilation)  # type: ignore[arg-type]
    )


def overridden_method(module: nn.Module, base: type[nn.Module]) -> str:
    """Returns the name of a method that decides what a module computes and is not that of a base class; else "".

    Such a method is overridden by a subclass or replaced on the instance.
    """
    kind = type(module)
    for name in ("forward", "_conv_forward", "__call__"):
        if getattr(kind, name, None) is not getattr(base, name, None) or name in module.__dict__:
            return name
    return ""


def computed_by_hooks(module: nn.Module) -> list[str]:
    """Returns the names of parameters that `weight_norm`, `spectral_norm` or pruning of torch compute in hooks."""
    kinds = (
        import_module("torch.nn.utils.weight_norm").WeightNorm,
        import_module("torch.nn.utils.spectral_norm").SpectralNorm,
    )
    hooks = module._forward_pre_hooks.values()
    names = [hook.name for hook in hooks if isinstance(hook, kinds)]
    return names + [hook._tensor_name for hook in hooks if isinstance(hook, BasePruningMethod)]


def remove_computing_hook(module: nn.Module, name: str) -> None:
    """Removes what `computed_by_hooks` found; the value that it computes in the present mode becomes the parameter."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if name in (getattr(hook, "name", None), getattr(hook, "_tensor_name", None)):
            hook.remove(module)  # type: ignore[attr-defined]
            del module._forward_pre_hooks[key]


def iterate_spectral_norms(module: nn.Module, iterations: int) -> None:
    """Lets the spectral norms of a module, of either kind, approach the singular vectors of its present weights."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, import_module("torch.nn.utils.spectral_norm").SpectralNorm):
            for _ in range(iterations):
                hook.compute_weight(module, do_power_iteration=True)
    if is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for name, parts in module.parametrizations.items():
            modes = {part: part.training for part in parts.modules() if type(part).__name__ == "_SpectralNorm"}
            for part in modes:
                part.train()
            for _ in range(iterations if modes else 0):
                getattr(module, name)
            for part, training in modes.items():
                part.training = training


def wrapper_of(module: nn.Module) -> tuple[str, nn.Module] | None:
    """Returns what a wrapper is called and the module in it; None if the module is no wrapper.

    A module that was compiled in place, by `module.compile()`, is its own content.
    """
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return type(module).__name__, module.module
    if type(module).__name__ == "OptimizedModule":  # importing its class takes seconds
        return "torch.compile", module.get_submodule("_orig_mod")
    return ("torch.compile", module) if module.__dict__.get(COMPILED_CALL_ATTRIBUTE) is not None else None


def _hook_tables(module: nn.Module) -> tuple[dict[int, Callable[..., object]], ...]:
    return module._forward_pre_hooks, module._forward_hooks


def own_forward_hooks(module: nn.Module) -> list[Callable[..., object]]:
    """Returns the forward pre-hooks and the forward hooks of a module itself."""
    return [hook for table in _hook_tables(module) for hook in table.values()]


def copy_layer(layer: nn.Module) -> nn.Module:
    """Returns a deep copy of a layer with the same hooks, not with copies of them.

    A hook that is a method of the network would otherwise copy the network, and belong to that copy.
    """
    return copy.deepcopy(layer, {id(table): table.copy() for table in _hook_tables(layer)})


def share_hooks(old: nn.Module, new: nn.Module) -> None:
    """Gives a module the forward hooks and forward pre-hooks of another one, in front of its own."""
    for name in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks",
                 "_forward_hooks_with_kwargs", "_forward_hooks_always_called"):  # fmt: skip
        own, others = new.__dict__[name], old.__dict__[name]
        new.__dict__[name] = type(own)([*others.items(), *own.items()])


def remove_forward_hook(module: nn.Module, hook: Callable[..., object]) -> None:
    """Removes a function from a module's forward hooks; the handle that registering it gave is not needed.

    Handles do not survive a deep copy of the module, its hooks do.
    """
    for key in [key for key, registered in module._forward_hooks.items() if registered is hook]:
        del module._forward_hooks[key]


def version_counter(tensor: Tensor) -> int:
    """Returns how often a tensor was changed in place; tensors that share storage share the counter."""
    return tensor._version


def view_base(tensor: Tensor) -> Tensor | None:
    """Returns the tensor of which a tensor is a view; None if it is not a view."""
    return tensor._base


def copy_tensors(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies each source into the target of the same position, in few kernels."""
    torch._foreach_copy_(list(targets), list(sources))


def interpolate_tensors(starts: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Moves each start towards its end in place: `start += weight * (end - start)`, in few kernels."""
    torch._foreach_lerp_(list(starts), list(ends), weight)


def schema_arguments(node: fx.Node) -> Sequence[Argument]:
    """Returns the arguments that the ATen function of a call node declares, in order."""
    assert isinstance(node.target, OpOverload)
    arguments: Sequence[Argument] = node.target._schema.arguments
    return arguments


def import_quantized_decomposed() -> OpNamespace:
    """Returns `torch.ops.quantized_decomposed`, the operators of pt2e quantization, after registering them."""
    import_module("torch.ao.quantization.fx._decomposed")
    return torch.ops.quantized_decomposed


def has_program_archive() -> bool:
    """Returns whether `torch.export.save` writes the archive that this package reads; torch does so since 2.8."""
    try:
        return hasattr(import_module("torch.export.pt2_archive._package"), "package_pt2")
    except ModuleNotFoundError:
        return False


def _inductor(module: str) -> ModuleType:
    return import_module(f"torch._inductor.{module}")  # takes seconds, and only torch.compile needs it


def cpp_compiler() -> str:
    """Returns the C++ compiler that torch.compile uses; raises `compiler_error()` where there is none."""
    return str(_inductor("cpp_builder").get_cpp_compiler())


def compiler_error() -> type[Exception]:
    """Returns the class of the error that a missing C++ compiler raises."""
    error: type[Exception] = _inductor("exc").InvalidCxxCompiler
    return error


def freeze_weights() -> AbstractContextManager[None]:
    """Returns a context in which torch.compile treats weights as constants."""
    context: AbstractContextManager[None] = _inductor("config").patch(freezing=True)
    return context
