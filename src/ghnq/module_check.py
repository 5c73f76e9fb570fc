"""What is asked of a network before anything is done with it: the same for tracing, quantization and export."""

from __future__ import annotations

import os
import warnings
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ghnq.errors import GhnqError, GhnqWarning
from ghnq.module_copy import copy_module
from ghnq.torch_compat import own_buffers, own_modules, own_parameters, wrapper_of

# Frames of files in these folders are not the user's.
_LIBRARIES = tuple(f"{os.path.dirname(os.path.abspath(file))}{os.sep}" for file in (torch.__file__, __file__))
_LAZY = "is not initialised yet (a lazy module); run the module once on an image first"


def check_network(module: object, function: str, error: type[GhnqError]) -> nn.Module:
    """Returns the network itself: the module, or what is inside of wrappers, with a warning that says so.

    Args:
        module: What the user gave.
        function: The name of the function that it was given to, for messages.
        error: What to raise.

    Raises:
        GhnqError: It is not a module, or a part of it is compiled by TorchScript, recurrent, quantized already, lazy or
            sparse; the message names the part.
    """
    network = unwrapped(check_is_module(module, function, error))
    for path, child in network.named_modules():
        kind: Any = type(child)  # mypy does not know that classes are hashable
        fault = class_fault(kind)
        if fault:
            raise error(f"module {path or '(root)'!r} ({kind.__name__}) is {fault}")
        for name, value in child.__dict__.items():
            if type(value) is torch.jit.ScriptFunction:
                raise error(script_function_fault(path, name))
        prefix = f"{path}." if path else ""
        for what, tensors in (("parameter", own_parameters(child)), ("buffer", own_buffers(child))):
            for name, tensor in tensors.items():
                fault = tensor_fault(tensor)
                if fault:
                    raise error(f"{what} {prefix + name!r} {fault}")
    return network


def check_is_module(module: object, function: str, error: type[GhnqError]) -> nn.Module:
    """Returns the module; raises the error if it is something else."""
    if not isinstance(module, nn.Module):
        raise error(f"{function}() takes a torch.nn.Module, got {type(module).__name__}")
    return module


@cache
def class_fault(kind: type[object]) -> str:
    """Returns why modules of this class are refused; empty if they are not."""
    if issubclass(kind, nn.RNNBase | nn.RNNCellBase):
        return "a recurrent layer; only feed-forward networks are architectures here"
    if issubclass(kind, torch.jit.ScriptModule):
        return "compiled by TorchScript and cannot be observed; give the original module"
    if ".nn.quantized" in kind.__module__ or ".nn.intrinsic.quantized" in kind.__module__:
        return "quantized already; give the network in float, from which its quantized form is made"
    return ""


def tensor_fault(tensor: Tensor | None) -> str:
    """Returns why a parameter or buffer is refused; empty if it is not."""
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        return _LAZY
    if isinstance(tensor, nn.Parameter) and (tensor.layout is not torch.strided or tensor.is_quantized):
        return "is sparse or quantized; only dense floating-point parameters are predicted and quantized"
    return ""


def script_function_fault(path: str, name: str) -> str:
    """Returns the message about a module that keeps a function that TorchScript compiled."""
    return (
        f"attribute {name!r} of module {path or '(root)'!r} is a function compiled by TorchScript and cannot be "
        "observed; keep the original Python function"
    )


def unwrapped(module: nn.Module, *, say: bool = True) -> nn.Module:
    """Returns the network without wrappers: DataParallel, DistributedDataParallel and torch.compile.

    Inside the network, wrappers are left out of a copy that shares parameters and buffers with the module. Without any
    wrapper the module itself is returned.

    Args:
        say: Whether to warn of the wrappers, whose names disappear from those of the parameters.
    """
    found = [(path, wrapper[0]) for path, child in module.named_modules() if (wrapper := wrapper_of(child))]
    if not found:
        return module
    network = _inside(module)
    if any(wrapper_of(child) for child in network.modules()):
        shared: dict[int, Any] = {id(t): t for t in [*network.parameters(), *network.buffers()]}
        network = copy_module(network, shared)  # which leaves out what `module.compile()` compiled
        for parent in list(network.modules()):
            for name, child in own_modules(parent).items():
                if child is not None:
                    own_modules(parent)[name] = _inside(child)
    if say:
        listed = ", ".join(f"{name} at {path!r}" if path else name for path, name in found)
        warnings.warn(
            f"the network is taken without its wrappers ({listed}); its parameters have the names that they have "
            "inside",
            GhnqWarning,
            stacklevel=3,
        )
    return network


def _inside(module: nn.Module) -> nn.Module:
    while (wrapper := wrapper_of(module)) is not None and wrapper[1] is not module:
        module = wrapper[1]
    return module


def held_by_functions(network: nn.Module) -> list[str]:
    """Returns the modules whose `forward` was replaced on the instance by a function that holds parts of the network.

    A copy of such a module still calls the original parts, with their parameters.
    """
    replaced = {path: module for path, module in network.named_modules() if "forward" in module.__dict__}
    modules = set(network.modules()) if replaced else set()
    return [path or "(root)" for path, module in replaced.items() if _holds(module, modules)]


def _holds(module: nn.Module, modules: set[nn.Module]) -> bool:
    for cell in getattr(module.__dict__.get("forward"), "__closure__", None) or ():
        owner = getattr(cell.cell_contents, "__self__", cell.cell_contents)
        if isinstance(owner, nn.Module) and owner in modules:
            return True
    return False


def failure_place(error: BaseException, network: nn.Module) -> tuple[str, str]:
    """Returns the submodule in which the forward pass failed, and ", FILE:LINE" of the user's code where known."""
    paths = {id(child): path for path, child in network.named_modules()}
    where, line = type(network).__name__, ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        owner, file = step.tb_frame.f_locals.get("self"), step.tb_frame.f_code.co_filename
        if isinstance(owner, nn.Module) and id(owner) in paths:
            where = f"module {paths[id(owner)] or '(root)'!r} ({type(owner).__name__})"
        if not file.startswith(_LIBRARIES):
            line = f", {file}:{step.tb_lineno}"
        step = step.tb_next
    return where, line
